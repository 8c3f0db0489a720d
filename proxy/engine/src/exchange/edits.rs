//! Header edits of routes and filters, made on a message.

use outrigger_traffic::config::HeaderAppend;
use outrigger_traffic::route::Edit;
use outrigger_traffic::template::Template;
use outrigger_wire::FieldBlock;
use smallvec::SmallVec;

/// Values of one step: those that replace fields, then those that add some; `None` stands for a literal.
pub(crate) type Made<'e> = SmallVec<[(&'e Edit, bool, Option<Vec<u8>>); 1]>;

/// What a step comes to: which of its edits are to be made, and their values, all of the message as it is now.
pub(crate) fn made<'e>(
    step: &'e Edit,
    fields: &FieldBlock,
    render: impl Fn(&Template, &mut Vec<u8>),
) -> Made<'e> {
    let mut made = Made::new();
    for edit in std::slice::from_ref(step).iter().flat_map(|one| match one {
        Edit::Together(all) => &**all,
        one => std::slice::from_ref(one),
    }) {
        let Edit::Set { name, value, append, keep_empty } = edit else { continue };
        let name = name.as_bytes();
        let replaces = match append {
            HeaderAppend::AppendIfExistsOrAdd => false,
            HeaderAppend::AddIfAbsent if !fields.contains(name) => false,
            HeaderAppend::OverwriteIfExists if fields.contains(name) => true,
            HeaderAppend::OverwriteIfExistsOrAdd => true,
            HeaderAppend::AddIfAbsent | HeaderAppend::OverwriteIfExists => continue,
        };
        let rendered = value.literal().is_none().then(|| {
            let mut text = Vec::new();
            render(value, &mut text);
            text
        });
        let is_empty = rendered.as_deref().or(value.literal()).is_none_or(<[u8]>::is_empty);
        if !is_empty || *keep_empty {
            made.push((edit, replaces, rendered));
        }
    }
    made
}

/// Makes a step's edits.
pub(crate) fn apply(fields: &mut FieldBlock, step: &Edit, made: Made<'_>) {
    match step {
        Edit::Remove(name) => {
            fields.remove(name.as_bytes());
        }
        Edit::RemoveMatching(matcher) => fields.retain(|name, _| !matcher.is_match(name)),
        Edit::Set { .. } | Edit::Together(_) => {
            for is_replacing in [true, false] {
                for (edit, _, rendered) in made.iter().filter(|(_, replaces, _)| *replaces == is_replacing) {
                    let Edit::Set { name, value, .. } = edit else { continue };
                    let value = rendered.as_deref().or(value.literal()).unwrap_or_default();
                    if is_replacing {
                        fields.set(name.as_bytes(), value);
                    } else {
                        fields.append(name.as_bytes(), value);
                    }
                }
            }
        }
    }
}
