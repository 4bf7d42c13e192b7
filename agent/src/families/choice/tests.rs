//! Counters files as people have them: good ones, old ones, wrong ones, and any text at all.

use super::*;

fn check(text: &str, shown: &[&str], rows: &[&str], unknown: &[&str]) {
    let (choice, complaints) = Choice::parse(text);
    let names: Vec<_> = choice.shown.iter().map(|shown| format!("{} {}", shown.kind.word(), shown.name)).collect();
    assert_eq!(names, shown, "{text}");
    assert_eq!(complaints.rows.len(), rows.len(), "{text}: {complaints:?}");
    for (said, expect) in complaints.rows.iter().zip(rows) {
        assert!(said.contains(expect), "{said}: {expect}");
    }
    assert_eq!(complaints.unknown.iter().map(String::as_str).collect::<Vec<_>>(), unknown, "{text}");
}

#[test]
fn a_file_chooses_families_names_types_and_helps() {
    let text = "\u{feff}# Format\n\n  # DCGM FIELD, type, help\nDCGM_FI_DEV_GPU_TEMP,    gauge, Temperature (in C).\r\n\
                DCGM_FI_DEV_DEC_UTIL ,     gauge, Decoder.\n\
                DCGM_FI_DEV_GPU_UTIL_RATIO, gauge, \"Use, in \"\"percent\"\".\"\n\
                DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION, gauge, \"mJ\"\n\
                DCGM_FI_DRIVER_VERSION, label, Driver Version\n";
    check(
        text,
        &[
            "gauge DCGM_FI_DEV_GPU_TEMP",
            "gauge DCGM_FI_DEV_DEC_UTIL",
            "gauge DCGM_FI_DEV_GPU_UTIL_RATIO",
            "gauge DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        ],
        &[],
        &[],
    );
    let (choice, _) = Choice::parse(text);
    assert_eq!(choice.shown[2].help, "Use, in \"percent\".");
    assert_eq!(choice.shown[2].family.name, "DCGM_FI_DEV_GPU_UTIL");
    assert_eq!(choice.labels.iter().map(|label| label.name).collect::<Vec<_>>(), ["DCGM_FI_DRIVER_VERSION"]);
    let gpu = Identity { index: 3, ..Identity::default() };
    assert_eq!(choice.labels[0].of(&gpu, Some("580.95.05")), Some("580.95.05".to_owned()));
    assert_eq!(choice.labels[0].of(&gpu, None), None);
}

#[test]
fn a_bad_row_is_told_with_its_line_and_costs_only_itself() {
    check(
        "DCGM_FI_DEV_GPU_TEMP, gauge, C.\n\nDCGM_FI_DEV_FB_USED\nDCGM_FI_DEV_FB_FREE, gauge, free, in MiB\n\
         DCGM_FI_DEV_GPU_TEMP, gauge, again\nDCGM_FI_DEV_SM_CLOCK, histogram, x\nDCGM_FI_DEV_MEM_CLOCK, label, x\n\
         DCGM_FI_DRIVER_VERSION, gauge, x\nDCGM_FI_DEV_GPU_TEM, gauge, x\ndcgm_fi_dev_power_usage, gauge, x\n\
         gpu_utilization, gauge, x\n\"DCGM_FI_DEV_ENC_UTIL, gauge, x\n\"DCGM_FI_DEV_ENC_UTIL\" x, gauge, x\n",
        &["gauge DCGM_FI_DEV_GPU_TEMP"],
        &[
            "line 3: 1 columns",
            "line 4: 4 columns",
            "line 5: DCGM_FI_DEV_GPU_TEMP is there already",
            "line 6: \"histogram\" is no type for DCGM_FI_DEV_SM_CLOCK; write gauge",
            "line 7: DCGM_FI_DEV_MEM_CLOCK is a number",
            "line 8: DCGM_FI_DRIVER_VERSION is a label",
            "line 9: DCGM_FI_DEV_GPU_TEM is no field; DCGM_FI_DEV_GPU_TEMP is",
            "line 10: dcgm_fi_dev_power_usage is no field; DCGM_FI_DEV_POWER_USAGE is",
            "line 11: \"gpu_utilization\" is no DCGM field",
            "line 12: a quote is not closed",
            "line 13: text after a closing quote",
        ],
        &[],
    );
}

#[test]
fn a_file_that_chooses_nothing_is_refused_in_one_short_line() {
    for (text, expect) in [
        ("", "--dcgm-names off"),
        ("# Format\n\n", "--dcgm-names off"),
        ("DCGM_FI_DRIVER_VERSION, label, Driver\n", "--dcgm-names off"),
        ("a,b\n", "no row of it can be used; line 1: 2 columns"),
        (&"x,gauge,y\n".repeat(90), "and 87 more"),
        ("DCGM_FI_DEV_GPU_TEMP, gauge, 20 \u{b0}C\n", ""),
    ] {
        let said = Choice::read(text.as_bytes()).err().unwrap_or_default();
        assert!(said.contains(expect) && said.is_empty() == expect.is_empty(), "{text}: {said}");
        assert!(said.len() < 500 && said.lines().count() <= 1, "{said}");
    }
    assert!(Choice::read(b"DCGM_FI_DEV_GPU_TEMP, gauge, 20 \xb0C\n").unwrap_err().contains("UTF-8"));
    assert!(Choice::read(b"DCGM_EXP_P2P_STATUS, gauge, x\n").is_ok(), "good rows that are not ours are no mistake");
}

#[test]
fn fields_that_are_not_read_are_told_once() {
    check(
        "DCGM_EXP_GPU_HEALTH_STATUS, gauge, x\nDCGM_EXP_GPU_HEALTH_STATUS, gauge, x\nDCGM_EXP_P2P_STATUS, gauge, x\n",
        &[],
        &[],
        &["DCGM_EXP_GPU_HEALTH_STATUS", "DCGM_EXP_P2P_STATUS"],
    );
}

#[test]
fn feature_30_old_and_new_names_are_two_names_for_the_same_families() {
    let (old, new) = (Choice::of(DcgmNames::Compat), Choice::of(DcgmNames::V46));
    let families = |choice: &Choice| choice.shown.iter().map(|shown| shown.family.name).collect::<Vec<_>>();
    assert_eq!(families(&old), families(&new));
    let differ = old.shown.iter().zip(&new.shown).filter(|(old, new)| old.name != new.name).count();
    assert!(differ >= 12, "{differ}");
    assert_eq!(Choice::of(DcgmNames::Off), Choice::default());
    for choice in [old, new] {
        let text: String =
            choice.shown.iter().map(|s| format!("{}, {}, {}\n", s.name, s.kind.word(), quoted(&s.help))).collect();
        let (read, complaints) = Choice::parse(&text);
        assert_eq!(
            (read.shown, complaints),
            (choice.shown, Complaints::default()),
            "a CSV can say what is shown unasked"
        );
    }
}

fn quoted(help: &str) -> String {
    format!("\"{help}\"")
}

#[test]
fn a_file_without_end_is_cut() {
    let (_, complaints) = Choice::parse(&"x,y,z\n".repeat(5_000));
    assert_eq!(complaints.rows.len(), 2_001);
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC*", rows in "((DCGM_FI_DEV_[A-Z_]{0,12}|\"[^\n]{0,9}|.{0,9}),? ?(gauge|label|x)?,? ?[\",a-z ]{0,9}\n){0,6}") {
        for text in [text, rows] {
            let (choice, complaints) = Choice::parse(&text);
            assert!(choice.shown.len() + complaints.rows.len() + complaints.unknown.len() <= text.lines().count());
        }
    }
}
