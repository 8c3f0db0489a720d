//! Sizes: what all containers ask for together must fit into what the task has, and Fargate has certain sizes only.

use serde_json::Value;

use super::Refusal;
use super::definition::Definition;
use super::json::list;

/// CPU units of a size, its memory from, to and in steps of, MiB. Source: ECS developer guide, "Task CPU and memory" of
/// Fargate task definitions.
const SIZES: [(u64, u64, u64, u64); 6] = [
    (512, 1_024, 4_096, 1_024),
    (1_024, 2_048, 8_192, 1_024),
    (2_048, 4_096, 16_384, 1_024),
    (4_096, 8_192, 30_720, 1_024),
    (8_192, 16_384, 61_440, 4_096),
    (16_384, 32_768, 122_880, 8_192),
];
/// The smallest size takes these amounts of memory.
const SMALLEST: (u64, [u64; 3]) = (256, [512, 1_024, 2_048]);
const LARGEST: u64 = 16_384;

/// Refuses what ECS would refuse, with what would do.
pub(super) fn check_sizes(task: &Value, definition: &Definition, refusals: &mut Vec<Refusal>) {
    let mut read = |key: &str, parse: fn(&str) -> Option<u64>| {
        let field = &task[key];
        let path = definition.at(key);
        let amount = match field {
            Value::Null if definition.fargate => {
                refusals.push(Refusal::new(path, "is needed for Fargate"));
                return None;
            }
            Value::Null => return None,
            Value::String(text) => parse(text),
            Value::Number(number) => number.as_u64(),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        if amount.is_none() {
            refusals.push(Refusal::new(path, format!("{field} is no amount")));
        }
        amount
    };
    let (cpu, memory) = (read("cpu", cpu_units), read("memory", mebibytes));
    let containers = list(task, "containerDefinitions");
    let sum = |keys: &[&str]| -> u64 {
        let of = |one: &Value| keys.iter().find_map(|key| one[*key].as_u64().filter(|n| *n > 0)).unwrap_or(0);
        containers.iter().map(of).fold(0, u64::saturating_add)
    };
    let (asked_cpu, asked_memory) = (sum(&["cpu"]), sum(&["memory", "memoryReservation"]));
    if definition.fargate
        && let Some(cpu) = cpu
        && let Some(memory) = memory
        && cpu <= LARGEST
        && !sizes_of(cpu).contains(&memory)
    {
        let (path, reason) = match sizes_of(cpu).as_slice() {
            [] => ("cpu", format!("{cpu} is no size of Fargate: 256, 512, 1024, 2048, 4096, 8192, 16384")),
            of => ("memory", format!("{memory} MiB do not go with {cpu} CPU units; {} do", amounts(of))),
        };
        refusals.push(Refusal::new(definition.at(path), reason));
        return;
    }
    if let Some(memory) = memory.filter(|memory| asked_memory > *memory) {
        let next = sizes_of(cpu.unwrap_or(0)).into_iter().find(|size| *size >= asked_memory);
        let hint = match next {
            Some(next) if definition.fargate => format!("{next} goes with this cpu"),
            _ => "give the task more".to_owned(),
        };
        let reason = format!(
            "the containers ask for {asked_memory} MiB with the proxy, the task has {memory}; {hint}, or the containers or the proxy (--memory) less"
        );
        refusals.push(Refusal::new(definition.at("memory"), reason));
    }
    if let Some(cpu) = cpu.filter(|cpu| asked_cpu > *cpu) {
        let reason = format!(
            "the containers ask for {asked_cpu} CPU units with the proxy, the task has {cpu}; give the task more, or the containers or the proxy (--cpu) less"
        );
        refusals.push(Refusal::new(definition.at("cpu"), reason));
    }
}

/// The memory that goes with so much CPU; nothing where there is no such size.
fn sizes_of(cpu: u64) -> Vec<u64> {
    if cpu == SMALLEST.0 {
        return SMALLEST.1.to_vec();
    }
    let size = SIZES.iter().find(|size| size.0 == cpu);
    size.map_or_else(Vec::new, |(_, from, to, step)| {
        std::iter::successors(Some(*from), |size| Some(size + step)).take_while(|size| size <= to).collect()
    })
}

fn amounts(of: &[u64]) -> String {
    match of {
        [one, two, three] => format!("{one}, {two} and {three}"),
        [first, second, .., last] => format!("{first} to {last} in steps of {}", second - first),
        other => format!("{other:?}"),
    }
}

/// `256` or `.25 vCPU`.
fn cpu_units(text: &str) -> Option<u64> {
    amount(text, "vcpu")
}

/// `512` or `0.5GB`.
fn mebibytes(text: &str) -> Option<u64> {
    amount(text, "gb")
}

/// A whole number, or one with a unit of 1024.
fn amount(text: &str, unit: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let Some(number) = text.strip_suffix(unit) else { return text.parse().ok() };
    let amount = number.trim().parse::<f64>().ok()? * 1_024.0;
    // Far beyond any size, and far below what a float holds exactly.
    (amount.is_finite() && (1.0..=1e9).contains(&amount)).then_some(amount as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_both_spellings() {
        for (text, units) in [
            ("256", Some(256)),
            (".25 vCPU", Some(256)),
            ("1vcpu", Some(1_024)),
            ("x", None),
            ("-1 vCPU", None),
        ] {
            assert_eq!(cpu_units(text), units, "{text}");
        }
        for (text, mib) in [("512", Some(512)), ("0.5GB", Some(512)), ("2 GB", Some(2_048)), ("1e99GB", None)]
        {
            assert_eq!(mebibytes(text), mib, "{text}");
        }
    }

    #[test]
    fn sizes_are_those_of_the_table() {
        assert_eq!(sizes_of(256), [512, 1_024, 2_048]);
        assert_eq!(sizes_of(512), [1_024, 2_048, 3_072, 4_096]);
        assert_eq!((sizes_of(4_096).len(), sizes_of(4_096).last()), (23, Some(&30_720)));
        assert_eq!((sizes_of(16_384).len(), sizes_of(300)), (12, Vec::new()));
    }
}
