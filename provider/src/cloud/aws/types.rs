//! What an EC2 instance type offers, from a table that is shipped: no call to EC2 is needed to describe a machine that
//! does not exist yet. A type that is not in it is described by the group's `node-template/resources` tags instead.

use crate::fleet::group::{Gpus, Shape};

const TABLE: &str = include_str!("types.csv");
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// Root volume of the EKS-optimized images; a group with another says so in `node-template/resources/ephemeral-storage`.
const ROOT_VOLUME: u64 = 20 * GIB;

/// The shape of that instance type; None when the table does not have it.
pub(super) fn shape(instance_type: &str) -> Option<Shape> {
    let row = TABLE.lines().find(|line| line.split(',').next() == Some(instance_type))?;
    parse(row)
}

/// A shape of which nothing is known: the group's own tags are to fill it in.
pub(super) fn unknown(instance_type: &str) -> Shape {
    Shape {
        instance_type: instance_type.to_owned(),
        arch: "amd64".to_owned(),
        cpu_milli: 0,
        memory: 0,
        ephemeral_storage: ROOT_VOLUME,
        pods: 0,
        reserved_cpu_milli: 0,
        reserved_memory: 0,
        gpus: None,
    }
}

fn parse(row: &str) -> Option<Shape> {
    let mut cells = row.split(',');
    let mut next = || cells.next();
    let (instance_type, arch) = (next()?.to_owned(), next()?.to_owned());
    let mut number = || next()?.parse::<u64>().ok();
    let (cpu_milli, memory) = (number()? * 1000, number()? * GIB);
    let pods = u32::try_from(number()?).ok()?;
    let (allocatable_cpu, allocatable_memory) = (number()?, number()? * MIB);
    let gpus = gpus(&mut cells);
    Some(Shape {
        instance_type,
        arch,
        cpu_milli,
        memory,
        ephemeral_storage: ROOT_VOLUME,
        pods,
        reserved_cpu_milli: cpu_milli.saturating_sub(allocatable_cpu),
        reserved_memory: memory.saturating_sub(allocatable_memory),
        gpus,
    })
}

fn gpus<'a>(cells: &mut impl Iterator<Item = &'a str>) -> Option<Gpus> {
    let model = cells.next().filter(|model| !model.is_empty())?.to_owned();
    let count = cells.next()?.parse().ok()?;
    let memory_mib = cells.next()?.parse().ok()?;
    Some(Gpus { model, count, memory_mib, resource: super::GPU_RESOURCE.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_read() {
        let rows: Vec<&str> = TABLE.lines().filter(|line| !line.starts_with('#')).skip(1).collect();
        assert!(rows.len() > 250);
        for row in rows {
            let shape = parse(row).unwrap_or_else(|| panic!("{row}"));
            assert!(shape.cpu_milli > shape.reserved_cpu_milli && shape.memory > shape.reserved_memory, "{row}");
            assert_eq!(shape.gpus.is_some(), row.contains("nvidia-"), "{row}");
        }
    }

    #[test]
    fn a_known_gpu_type_has_its_gpus() {
        let gpus = shape("p5.48xlarge").unwrap().gpus.unwrap();
        assert_eq!((gpus.model.as_str(), gpus.count, gpus.memory_mib), ("nvidia-h100", 8, 80 << 10));
        assert!(shape("p5.48xlargest").is_none());
    }
}
