//! zenoh's access control: nothing passes but what is listed here.
//!
//! Four rules, seen from the bridge; a controller's and an observer's own session hold the same ones the other way
//! round:
//!
//! | rule | what | who |
//! |---|---|---|
//! | commands | `target` and `request` come in | controller |
//! | offered | that they are wanted is said | controller |
//! | reports | `state` and `status` go out | controller, observer |
//! | wanted | that they are wanted is heard | controller, observer |
//!
//! Who is who stands in the certificate that TLS has verified. On one computer there are no certificates, and every
//! program that reaches the end point counts as the controller. Deletions, queries, answers, liveliness and every other
//! key are for nobody.

use super::{Endpoint, Protection, Role};
use crate::codec::MessageKind;
use crate::keys::RobotKeys;

const COMMANDER: &str = "\"commands\", \"offered\", \"reports\", \"wanted\"";
const LISTENER: &str = "\"reports\", \"wanted\"";

/// The value of `access_control` for a session in role `own`.
pub(crate) fn access_control(endpoint: &Endpoint, own: Role, keys: &RobotKeys) -> String {
    let (to_bridge, from_bridge) = match own {
        Role::Bridge => ("ingress", "egress"),
        Role::Controller | Role::Observer => ("egress", "ingress"),
    };
    let (commands, reports) = ([MessageKind::Target, MessageKind::Request], [MessageKind::State, MessageKind::Status]);
    let rule = |id: &str, message: &str, flow: &str, kinds: [MessageKind; 2]| {
        let [first, second] = kinds.map(|kind| keys.key(kind));
        format!(
            "{{ id: \"{id}\", permission: \"allow\", messages: [\"{message}\"], flows: [\"{flow}\"], key_exprs: [\"{first}\", \"{second}\"] }}"
        )
    };
    let rules = [
        rule("commands", "put", to_bridge, commands),
        rule("offered", "declare_subscriber", from_bridge, commands),
        rule("reports", "put", from_bridge, reports),
        rule("wanted", "declare_subscriber", to_bridge, reports),
    ]
    .join(", ");
    let peers: &[(Role, &str)] = match own {
        Role::Bridge => &[(Role::Controller, COMMANDER), (Role::Observer, LISTENER)],
        Role::Controller => &[(Role::Bridge, COMMANDER)],
        Role::Observer => &[(Role::Bridge, LISTENER)],
    };
    let protocol = endpoint.protocol();
    let (mut subjects, mut policies) = (Vec::new(), Vec::new());
    match endpoint.protection() {
        Protection::Certificates(_) => {
            for (role, allowed) in peers {
                let (id, name) = (role.name(), role.common_name());
                subjects.push(format!(
                    "{{ id: \"{id}\", cert_common_names: [\"{name}\"], link_protocols: [\"{protocol}\"] }}"
                ));
                policies.push(format!("{{ rules: [{allowed}], subjects: [\"{id}\"] }}"));
            }
        }
        // Nobody can be told from anybody: the first of the peers has the most rights.
        Protection::OneComputer | Protection::Nothing => {
            subjects.push(format!("{{ id: \"anybody\", link_protocols: [\"{protocol}\"] }}"));
            policies.push(format!("{{ rules: [{}], subjects: [\"anybody\"] }}", peers[0].1));
        }
    }
    let (subjects, policies) = (subjects.join(", "), policies.join(", "));
    format!(
        "{{ enabled: true, default_permission: \"deny\", rules: [{rules}], subjects: [{subjects}], policies: [{policies}] }}"
    )
}
