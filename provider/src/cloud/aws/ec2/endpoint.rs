//! Where EC2 listens, by region: partition, FIPS and dual-stack.

/// A partition of AWS: how its regions begin, its domain, and its domain where IPv6 is spoken, too.
/// Source: the partitions of the AWS SDKs' endpoint rules, 2026-08.
const PARTITIONS: &[(&str, &str, &str)] = &[
    ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ("", "amazonaws.com", "api.aws"),
];

/// The URL of EC2 in a region.
pub(super) fn of(region: &str, fips: bool, dual_stack: bool) -> String {
    let partition = PARTITIONS.iter().find(|(prefix, ..)| region.starts_with(prefix));
    let (domain, dual_stack_domain) = partition.map_or(("amazonaws.com", "api.aws"), |row| (row.1, row.2));
    // The plain name is the FIPS one in GovCloud.
    let service = if fips && !region.starts_with("us-gov-") { "ec2-fips" } else { "ec2" };
    format!("https://{service}.{region}.{}", if dual_stack { dual_stack_domain } else { domain })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn the_address_follows_partition_fips_and_dual_stack() {
        for (region, fips, dual_stack, expected) in [
            ("eu-west-1", false, false, "https://ec2.eu-west-1.amazonaws.com"),
            ("us-east-1", true, false, "https://ec2-fips.us-east-1.amazonaws.com"),
            ("us-east-1", true, true, "https://ec2-fips.us-east-1.api.aws"),
            ("us-gov-west-1", true, false, "https://ec2.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", false, false, "https://ec2.cn-north-1.amazonaws.com.cn"),
            ("us-iso-east-1", false, false, "https://ec2.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", false, false, "https://ec2.us-isob-east-1.sc2s.sgov.gov"),
        ] {
            assert_eq!(of(region, fips, dual_stack), expected);
        }
    }
}
