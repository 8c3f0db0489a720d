//! Docker's events, as far as they matter.

use std::collections::HashMap;

use bollard::models::EventMessage;

use crate::member::{is_sidecar, is_task, label};

/// Actions asked for. Others, health checks above all, would be many for nothing.
pub const ACTIONS: [&str; 6] = ["start", "kill", "die", "destroy", "health_status", "oom"];

/// Something happened to a task's container or to its sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The application's container.
    pub app: String,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The application was sent a signal.
    Signalled(i32),
    /// The application ended.
    Ended,
    /// Something that is found out by looking.
    Changed,
}

/// Reads an event; `None` for those of containers that are no tasks and no sidecars.
pub fn read(message: &EventMessage) -> Option<Event> {
    let actor = message.actor.as_ref()?;
    let id = actor.id.as_ref()?;
    let none = HashMap::new();
    let attributes = actor.attributes.as_ref().unwrap_or(&none);
    // Labels of the container are among the attributes.
    if is_sidecar(attributes) {
        return Some(Event { app: attributes.get(label::sidecar::FOR)?.clone(), what: What::Changed });
    }
    if !is_task(attributes) {
        return None;
    }
    let what = match message.action.as_deref()? {
        "kill" => What::Signalled(signal_number(attributes.get("signal").map_or("", String::as_str))),
        "die" | "destroy" => What::Ended,
        _ => What::Changed,
    };
    Some(Event { app: id.clone(), what })
}

/// A signal by its number or its name; 0 for what is neither.
pub fn signal_number(text: &str) -> i32 {
    if let Ok(number) = text.parse() {
        return number;
    }
    // Source: signal(7), x86 and ARM.
    const NAMES: [(&str, i32); 8] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("TERM", 15),
        ("WINCH", 28),
    ];
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.iter().find(|(known, _)| *known == name).map_or(0, |(_, number)| *number)
}

/// Whether a signal ends a container whose definition names `stop_signal`.
pub fn ends(signal: i32, stop_signal: Option<&str>) -> bool {
    match stop_signal.map(signal_number) {
        Some(own) if own == signal && own != 0 => true,
        _ => matches!(signal, 2 | 3 | 9 | 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, attributes: &[(&str, &str)]) -> Option<Event> {
        let attributes: serde_json::Map<_, _> =
            attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let text = serde_json::json!({"Type": "container", "Action": action, "Actor": {"ID": "app1", "Attributes": attributes}});
        read(&serde_json::from_value(text).unwrap())
    }

    #[test]
    fn events_of_tasks_and_their_sidecars_are_read_and_others_are_not() {
        let task = (label::ecs::TASK_ARN, "arn:aws:ecs:eu-west-1:1:task/c/0");
        let kill = event("kill", &[task, ("signal", "15")]).unwrap();
        assert_eq!((kill.app.as_str(), kill.what), ("app1", What::Signalled(15)));
        assert_eq!(event("die", &[task]).unwrap().what, What::Ended);
        assert_eq!(event("start", &[task]).unwrap().what, What::Changed);
        assert_eq!(event("start", &[]), None);
        let ours = [(label::sidecar::ROLE, "sidecar"), (label::sidecar::FOR, "app2")];
        let sidecar = event("die", &ours).unwrap();
        assert_eq!((sidecar.app.as_str(), sidecar.what), ("app2", What::Changed));
        let pretender = event("die", &[ours[0], ours[1], task]).unwrap();
        assert_eq!((pretender.app.as_str(), pretender.what), ("app1", What::Ended));
    }

    #[test]
    fn signals_that_end_a_container_are_known() {
        assert!(ends(15, None) && ends(9, Some("SIGQUIT")) && ends(28, Some("SIGWINCH")));
        assert!(!ends(1, None) && !ends(28, None) && !ends(0, Some("nonsense")));
        assert_eq!((signal_number("SIGTERM"), signal_number("term"), signal_number("10")), (15, 15, 10));
    }
}
