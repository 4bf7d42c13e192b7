//! What is to be had and what is not: by group, zone, instance type and market, each as narrow as a test wants.

use super::machine::{Market, Offer};

/// Machines that AWS will not give, and what it says then. What is not narrowed holds everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scarcity {
    group: Option<String>,
    zone: Option<String>,
    instance_type: Option<String>,
    market: Option<Market>,
    left: u32,
    code: String,
    message: Option<String>,
}

impl Scarcity {
    /// Nothing anywhere, refused with this code of EC2's, as `InsufficientInstanceCapacity`.
    #[must_use]
    pub fn new(code: &str) -> Self {
        let code = code.to_owned();
        Self { group: None, zone: None, instance_type: None, market: None, left: 0, code, message: None }
    }

    /// In this Auto Scaling group only.
    #[must_use]
    pub fn group(mut self, name: &str) -> Self {
        self.group = Some(name.to_owned());
        self
    }

    /// In this zone only.
    #[must_use]
    pub fn zone(mut self, zone: &str) -> Self {
        self.zone = Some(zone.to_owned());
        self
    }

    /// Of this instance type only.
    #[must_use]
    pub fn instance_type(mut self, name: &str) -> Self {
        self.instance_type = Some(name.to_owned());
        self
    }

    /// In this market only.
    #[must_use]
    pub fn market(mut self, market: Market) -> Self {
        self.market = Some(market);
        self
    }

    /// Only after this many machines have been given.
    #[must_use]
    pub fn after(mut self, machines: u32) -> Self {
        self.left = machines;
        self
    }

    /// With this sentence instead of AWS's own for the code.
    #[must_use]
    pub fn saying(mut self, message: &str) -> Self {
        self.message = Some(message.to_owned());
        self
    }

    fn concerns(&self, group: &str, offer: &Offer) -> bool {
        let is = |wanted: &Option<String>, it: &str| wanted.as_ref().is_none_or(|wanted| wanted == it);
        is(&self.group, group)
            && is(&self.zone, &offer.zone)
            && is(&self.instance_type, &offer.instance_type)
            && self.market.is_none_or(|market| market == offer.market)
    }

    fn same_place(&self, other: &Self) -> bool {
        (&self.group, &self.zone, &self.instance_type, self.market)
            == (&other.group, &other.zone, &other.instance_type, other.market)
    }
}

/// Everything that is scarce now.
#[derive(Clone, Debug, Default)]
pub(super) struct Supply(Vec<Scarcity>);

impl Supply {
    /// From now on; replaces what was said of the very same place.
    pub(super) fn set(&mut self, scarcity: Scarcity) {
        self.0.retain(|it| !it.same_place(&scarcity));
        self.0.push(scarcity);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes one machine, or answers code and sentence of the refusal.
    pub(super) fn take(&mut self, group: &str, offer: &Offer) -> Result<(), (String, String)> {
        if let Some(out) = self.0.iter().find(|it| it.left == 0 && it.concerns(group, offer)) {
            let message = out.message.clone().unwrap_or_else(|| sentence(&out.code, offer));
            return Err((out.code.clone(), message));
        }
        for scarcity in self.0.iter_mut().filter(|it| it.concerns(group, offer)) {
            scarcity.left = scarcity.left.saturating_sub(1);
        }
        Ok(())
    }
}

/// What EC2 says with a code.
fn sentence(code: &str, offer: &Offer) -> String {
    let (name, zone) = (&offer.instance_type, &offer.zone);
    match code {
        "InsufficientInstanceCapacity" => format!(
            "We currently do not have sufficient {name} capacity in the Availability Zone you requested ({zone}). Our system \
             will be working on provisioning additional capacity. You can currently get {name} capacity by not specifying an \
             Availability Zone in your request."
        ),
        "UnfulfillableCapacity" => {
            "Unable to fulfill capacity due to your request configuration. Please adjust your request and try again.".to_owned()
        }
        "VcpuLimitExceeded" => "You have requested more vCPU capacity than your current vCPU limit of 32 allows for the instance \
             bucket that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to \
             request an adjustment to this limit."
            .to_owned(),
        "MaxSpotInstanceCountExceeded" => "Max spot instance count exceeded".to_owned(),
        "InsufficientFreeAddressesInSubnet" => {
            format!("There are not enough free addresses in subnet 'subnet-{zone}' to satisfy the requested number of instances.")
        }
        "SpotMaxPriceTooLow" => "Your Spot request price of 0.01 is lower than the minimum required Spot request fulfillment \
             price of 0.3.".to_owned(),
        "InvalidAMIID.NotFound" => "The image id '[ami-0]' does not exist".to_owned(),
        "UnauthorizedOperation" => {
            "You are not authorized to perform this operation. Encoded authorization failure message: x".to_owned()
        }
        "Unsupported" => format!(
            "Your requested instance type ({name}) is not supported in your requested Availability Zone ({zone}). Please retry \
             your request by not specifying an Availability Zone."
        ),
        other => format!("{other} was scripted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(zone: &str, market: Market) -> Offer {
        Offer { zone: zone.to_owned(), instance_type: "g5.xlarge".to_owned(), market }
    }

    #[test]
    fn what_is_scarce_in_one_place_is_given_in_another() {
        let mut supply = Supply::default();
        supply.set(Scarcity::new("InsufficientInstanceCapacity").group("g").zone("a").market(Market::Spot).after(1));
        assert!(supply.take("g", &offer("a", Market::Spot)).is_ok());
        let (code, message) = supply.take("g", &offer("a", Market::Spot)).unwrap_err();
        assert!(code == "InsufficientInstanceCapacity" && message.contains("(a)"), "{message}");
        for (group, zone, market) in [("h", "a", Market::Spot), ("g", "b", Market::Spot), ("g", "a", Market::OnDemand)]
        {
            assert!(supply.take(group, &offer(zone, market)).is_ok());
        }
        supply.clear();
        assert!(supply.take("g", &offer("a", Market::Spot)).is_ok());
    }
}
