//! The report as a person sees it.

use super::*;

#[test]
fn a_report_for_people() {
    let report = Report {
        findings: vec![
            Finding::ok("NVML", "driver 580.95.05"),
            Finding::note("cloud", "off-cloud", "nothing to do"),
            Finding::mend("kubelet", "no socket\nnone at all", &"mount it ".repeat(20)),
        ],
    };
    let expect = "\
ok    NVML     driver 580.95.05
note  cloud    off-cloud
               -> nothing to do
MEND  kubelet  no socket
               none at all
               -> mount it mount it mount it mount it mount it mount it mount it mount it mount it mount it mount it
                  mount it mount it mount it mount it mount it mount it mount it mount it mount it

1 thing to mend, 1 note
";
    assert_eq!(report.to_string(), expect);
    assert!(report.is_ill() && !Report::default().is_ill());
    assert_eq!(Report::default().to_string(), "\nnothing to mend, 0 notes\n");
}

#[test]
fn a_port_is_free_or_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let other = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = taken.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nDCGM exporter").unwrap();
    });
    let finding = port(address);
    assert!(finding.grade == Grade::Mend && finding.what.contains("another program"), "{finding:?}");
    other.join().unwrap();
    assert_eq!(port(([127, 0, 0, 1], 0).into()).grade, Grade::Ok);
    assert_eq!(port(([192, 0, 2, 1], 9400).into()).grade, Grade::Mend, "an address that is not ours");
}
