//! Who gets through to whom, over real sessions: certificates, what they are for, and the access control behind them.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{
    Authority, DAY_S, Wanted, clock, endpoint, free_port, keys, state, status, target, tls_endpoint, wait_for,
};
use rcgen::ExtendedKeyUsagePurpose;
use tenon_core::message::Request;
use tenon_link::security::unix_now;
use tenon_link::{
    BridgeInbox, BridgeSender, Identity, LinkError, LinkObserver, MessageKind, RobotLink, Role, SecurityError,
    ZenohLink, codec, open_bridge_link,
};
use zenoh::Wait;
use zenoh::qos::{CongestionControl, Priority};

const CONNECT: Duration = Duration::from_secs(5);
/// Where nothing is going to connect.
const SHORT: Duration = Duration::from_millis(300);
/// How long something that must not happen is waited for, where it would happen within milliseconds.
const QUIET: Duration = Duration::from_millis(400);

/// A session as somebody else's program would open it: no access control of its own.
fn stranger(address: &str, settings: &[(&str, String)]) -> Result<zenoh::Session, zenoh::Error> {
    let mut config = zenoh::Config::default();
    let basics = [
        ("mode", "\"client\"".to_owned()),
        ("scouting/multicast/enabled", "false".to_owned()),
        ("connect/endpoints", format!("[\"{address}\"]")),
        ("connect/timeout_ms", "1000".to_owned()),
        ("connect/exit_on_failure", "true".to_owned()),
    ];
    for (key, value) in basics.iter().chain(settings) {
        config.insert_json5(key, value).unwrap();
    }
    zenoh::open(config).wait()
}

/// Settings with the files of a folder.
fn certificates(folder: &Path, side: &str) -> Vec<(&'static str, String)> {
    let file = |name: &str| format!("\"{}\"", folder.join(name).display());
    let (certificate, key) = match side {
        "listen" => ("transport/link/tls/listen_certificate", "transport/link/tls/listen_private_key"),
        _ => ("transport/link/tls/connect_certificate", "transport/link/tls/connect_private_key"),
    };
    vec![
        ("transport/link/tls/root_ca_certificate", file("ca.pem")),
        (certificate, file("cert.pem")),
        (key, file("key.pem")),
        ("transport/link/tls/enable_mtls", "true".to_owned()),
    ]
}

/// Everything that could make the arm move, again and again for a while.
fn attack(session: &zenoh::Session) {
    let until = Instant::now() + QUIET;
    while Instant::now() < until {
        for (kind, bytes) in [
            (MessageKind::Target, codec::encode_target(&target(666)).to_vec()),
            (MessageKind::Request, codec::encode_request(&Request::Arm { session: 666 }).to_vec()),
        ] {
            session.put(keys().key(kind), bytes).wait().unwrap();
            session.delete(keys().key(kind)).wait().unwrap();
        }
        session.put(keys().key(MessageKind::State), codec::encode_state(&state(666)).to_vec()).wait().unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn serves(sender: &BridgeSender, inbox: &mut BridgeInbox, controller: &mut ZenohLink) {
    let mut sequence = inbox.latest_target().map_or(0, |t| t.value.sequence);
    let first = sequence;
    wait_for("state at the controller, and its target at the bridge", || {
        sequence += 1;
        sender.publish_state(&state(sequence)).unwrap();
        sender.publish_status(&status(sequence)).unwrap();
        controller.send_target(&target(sequence)).unwrap();
        let arrived = inbox.latest_target().is_some_and(|t| t.value.sequence > first);
        (arrived && controller.latest_state().is_some()).then_some(())
    });
}

#[test]
fn a_controller_commands_and_an_observer_only_listens() {
    let folder = tempfile::tempdir().unwrap();
    Authority::new("ours").write_all(folder.path());
    let endpoint = tls_endpoint(free_port(), folder.path());
    let (sender, mut inbox) = open_bridge_link(&endpoint, &keys(), clock(), || {}).unwrap();
    inbox.follow(1);
    let mut controller = ZenohLink::connect(&endpoint, &keys(), clock(), CONNECT).unwrap();
    serves(&sender, &mut inbox, &mut controller);
    let mut observer = LinkObserver::connect(&endpoint, &keys(), clock(), CONNECT).unwrap();
    let mut reader = ZenohLink::listen(&endpoint, &keys(), clock(), CONNECT).unwrap();
    wait_for("state at both observers", || {
        sender.publish_state(&state(5)).unwrap();
        (observer.next_message().is_some() && reader.latest_state().is_some()).then_some(())
    });
    assert_eq!(reader.send_target(&target(1)), Err(LinkError::ReadOnly));
    assert_eq!(reader.send_request(Request::Arm { session: 1 }), Err(LinkError::ReadOnly));

    // The observer's certificate in a program that is not ours.
    let before = inbox.counters();
    let spy = stranger(endpoint.address(), &certificates(&folder.path().join("observer"), "connect")).unwrap();
    attack(&spy);
    let after = inbox.counters();
    assert_eq!((after.received, after.refused, after.foreign), (before.received, before.refused, before.foreign));
    assert!(inbox.next_request().is_none() && inbox.latest_target().unwrap().value.sequence != 666);
    assert_ne!(controller.latest_state().unwrap().value.sequence, 666);

    // The same program with the controller's certificate gets through: what stopped it was the certificate.
    let twin = stranger(endpoint.address(), &certificates(&folder.path().join("controller"), "connect")).unwrap();
    attack(&twin);
    assert_eq!(inbox.next_request().map(|r| r.value), Some(Request::Arm { session: 666 }));
    assert_eq!(inbox.latest_target().unwrap().value.sequence, 666);
    // Not even the controller speaks for the bridge, or deletes.
    assert_ne!(controller.latest_state().unwrap().value.sequence, 666);
    assert_eq!(inbox.counters().refused, 0);
}

#[test]
fn strangers_are_refused_and_the_controller_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    ours.write_all(folder.path());
    let port = free_port();
    let endpoint = tls_endpoint(port, folder.path());
    let (sender, mut inbox) = open_bridge_link(&endpoint, &keys(), clock(), || {}).unwrap();
    inbox.follow(1);
    let mut controller = ZenohLink::connect(&endpoint, &keys(), clock(), CONNECT).unwrap();
    serves(&sender, &mut inbox, &mut controller);

    let write = |authority: &Authority, wanted: Wanted| {
        let other = tempfile::tempdir().unwrap();
        authority.write(other.path(), Role::Controller, wanted);
        // What it believes is the same in every case: it is the bridge that refuses.
        std::fs::write(other.path().join("controller/ca.pem"), &ours.certificate).unwrap();
        other
    };
    for (what, authority, wanted) in [
        ("of another authority", &theirs, Wanted::of(Role::Controller)),
        ("that has ended", &ours, Wanted { from_s: -2 * DAY_S, until_s: -DAY_S, ..Wanted::of(Role::Controller) }),
        ("that has not begun", &ours, Wanted { from_s: DAY_S, ..Wanted::of(Role::Controller) }),
        (
            "for answering",
            &ours,
            Wanted { purpose: ExtendedKeyUsagePurpose::ServerAuth, ..Wanted::of(Role::Controller) },
        ),
    ] {
        let other = write(authority, wanted);
        let opened = stranger(endpoint.address(), &certificates(&other.path().join("controller"), "connect"));
        assert!(opened.is_err(), "a certificate {what} was accepted");
    }
    // Files that nothing on this side can find wrong: the bridge's refusal is what the error says.
    let other = tempfile::tempdir().unwrap();
    theirs.write_all(other.path());
    let error = ZenohLink::connect(&tls_endpoint(port, other.path()), &keys(), clock(), SHORT).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("authority that is not believed here"), "{error}");
    for role in [Role::Controller, Role::Observer] {
        let trust = format!("{}{}", theirs.certificate, ours.certificate);
        std::fs::write(other.path().join(role.name()).join("ca.pem"), trust).unwrap();
    }
    let error = ZenohLink::connect(&tls_endpoint(port, other.path()), &keys(), clock(), SHORT).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("refuses this computer's certificate"), "{error}");
    let error = LinkObserver::connect(&tls_endpoint(free_port(), folder.path()), &keys(), clock(), SHORT)
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("nothing listens at"), "{error}");
    let root =
        ("transport/link/tls/root_ca_certificate", format!("\"{}\"", folder.path().join("bridge/ca.pem").display()));
    assert!(stranger(endpoint.address(), &[root]).is_err(), "no certificate was accepted");
    assert!(stranger(&format!("tcp/127.0.0.1:{port}"), &[]).is_err(), "plain TCP was accepted");
    // A certificate of ours with a name that nobody knows connects, and is heard by nobody.
    let other = write(&ours, Wanted { common_name: "tenon-guest", ..Wanted::of(Role::Controller) });
    let guest = stranger(endpoint.address(), &certificates(&other.path().join("controller"), "connect")).unwrap();
    attack(&guest);
    assert!(inbox.next_request().is_none() && inbox.latest_target().unwrap().value.sequence != 666);

    serves(&sender, &mut inbox, &mut controller);
}

#[test]
fn the_end_of_a_certificate_ends_its_connection() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    ours.write_all(folder.path());
    let endpoint = tls_endpoint(free_port(), folder.path());
    let (sender, mut inbox) = open_bridge_link(&endpoint, &keys(), clock(), || {}).unwrap();
    inbox.follow(1);
    ours.write(folder.path(), Role::Controller, Wanted { until_s: 4, ..Wanted::of(Role::Controller) });
    let begin = Instant::now();
    let mut controller = ZenohLink::connect(&endpoint, &keys(), clock(), CONNECT).unwrap();
    serves(&sender, &mut inbox, &mut controller);
    let mut sequence = 1000;
    let mut last = Instant::now();
    wait_for("silence", || {
        sequence += 1;
        controller.send_target(&target(sequence)).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        if inbox.latest_target().is_some_and(|t| t.value.sequence == sequence) {
            last = Instant::now();
        }
        (last.elapsed() > Duration::from_secs(2)).then_some(())
    });
    assert!(last.duration_since(begin) < Duration::from_secs(6), "{:?}", last.duration_since(begin));
    let refused = ZenohLink::connect(&endpoint, &keys(), clock(), CONNECT).map(|_| ()).unwrap_err();
    assert!(matches!(refused, LinkError::Security(SecurityError::Expired { .. })), "{refused}");
}

#[test]
fn only_the_bridge_is_believed_to_be_the_bridge() {
    let ours = Authority::new("ours");
    let client = tempfile::tempdir().unwrap();
    ours.write_all(client.path());
    let listen = |wanted: Wanted| {
        let folder = tempfile::tempdir().unwrap();
        ours.write(folder.path(), Role::Bridge, wanted);
        let address = format!("tls/127.0.0.1:{}", free_port());
        let mut settings = certificates(&folder.path().join("bridge"), "listen");
        settings.push(("mode", "\"peer\"".to_owned()));
        settings.push(("connect/endpoints", "[]".to_owned()));
        settings.push(("listen/endpoints", format!("[\"{address}\"]")));
        (stranger("tcp/127.0.0.1:1", &settings).unwrap(), address, folder)
    };
    let connect = |address: &str, patience: Duration| {
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        ZenohLink::connect(&tls_endpoint(port, client.path()), &keys(), clock(), patience)
    };
    for (said, wanted) in [
        ("is for another name", Wanted { names: vec!["192.0.2.1".to_owned()], ..Wanted::of(Role::Bridge) }),
        ("TLS says", Wanted { purpose: ExtendedKeyUsagePurpose::ClientAuth, ..Wanted::of(Role::Bridge) }),
        ("has ended", Wanted { from_s: -2 * DAY_S, until_s: -DAY_S, ..Wanted::of(Role::Bridge) }),
    ] {
        let (_listener, address, _folder) = listen(wanted);
        let error = connect(&address, SHORT).map(|_| ()).unwrap_err();
        assert!(matches!(error, LinkError::ConnectProtected { .. }), "{error}");
        println!("{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    // One of ours that may answer but is not the bridge's: nothing it says is heard, nothing is said to it.
    let (impostor, address, _folder) = listen(Wanted { common_name: "tenon-printer", ..Wanted::of(Role::Bridge) });
    let heard = impostor.declare_subscriber(keys().key(MessageKind::Target)).wait().unwrap();
    let mut controller = connect(&address, CONNECT).unwrap();
    let until = Instant::now() + QUIET;
    while Instant::now() < until {
        impostor.put(keys().key(MessageKind::State), codec::encode_state(&state(666)).to_vec()).wait().unwrap();
        controller.send_target(&target(1)).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(controller.latest_state().is_none() && heard.try_recv().unwrap().is_none());
    // The same with the right name: what stopped it was the name.
    let (bridge, address, _folder) = listen(Wanted::of(Role::Bridge));
    let heard = bridge.declare_subscriber(keys().key(MessageKind::Target)).wait().unwrap();
    let mut controller = connect(&address, CONNECT).unwrap();
    wait_for("state and target", || {
        bridge.put(keys().key(MessageKind::State), codec::encode_state(&state(666)).to_vec()).wait().unwrap();
        controller.send_target(&target(1)).unwrap();
        (controller.latest_state().is_some() && heard.try_recv().unwrap().is_some()).then_some(())
    });
}

#[test]
fn nothing_but_the_four_keys_passes_on_one_computer_either() {
    let endpoint = endpoint();
    let (sender, mut inbox) = open_bridge_link(&endpoint, &keys(), clock(), || {}).unwrap();
    inbox.follow(1);
    let other = stranger(endpoint.address(), &[]).unwrap();
    // Whoever asks for everything gets nothing; who asks for the key itself gets it.
    let everything = other.declare_subscriber("**").wait().unwrap();
    let exact = other.declare_subscriber(keys().key(MessageKind::State)).wait().unwrap();
    wait_for("state", || {
        sender.publish_state(&state(1)).unwrap();
        exact.try_recv().unwrap()
    });
    drop(exact);
    std::thread::sleep(QUIET);
    while everything.try_recv().unwrap().is_some() {}
    sender.publish_state(&state(2)).unwrap();
    std::thread::sleep(QUIET);
    assert!(everything.try_recv().unwrap().is_none(), "a subscription to everything was served");
    // Deletions do not arrive, puts do.
    let until = Instant::now() + QUIET;
    while Instant::now() < until {
        other.delete(keys().key(MessageKind::Target)).wait().unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((inbox.counters().received, inbox.counters().refused), (0, 0));
    wait_for("target", || {
        other.put(keys().key(MessageKind::Target), codec::encode_target(&target(1)).to_vec()).wait().unwrap();
        inbox.latest_target()
    });
}

#[test]
fn messages_are_express_and_real_time_and_dropped_rather_than_queued() {
    let endpoint = endpoint();
    let settings = [
        ("mode", "\"peer\"".to_owned()),
        ("connect/endpoints", "[]".to_owned()),
        ("listen/endpoints", format!("[\"{endpoint}\"]")),
    ];
    let bridge = stranger("tcp/127.0.0.1:1", &settings).unwrap();
    let heard = [MessageKind::Target, MessageKind::Request]
        .map(|kind| bridge.declare_subscriber(keys().key(kind)).wait().unwrap());
    let mut link = ZenohLink::connect(&endpoint, &keys(), clock(), CONNECT).unwrap();
    let commands = heard.map(|subscriber| {
        wait_for("command", || {
            link.send_target(&target(1)).unwrap();
            link.send_request(Request::Heartbeat { session: 1 }).unwrap();
            subscriber.try_recv().unwrap()
        })
    });
    drop(link);
    drop(bridge);
    let endpoint = common::endpoint();
    let (sender, _inbox) = open_bridge_link(&endpoint, &keys(), clock(), || {}).unwrap();
    let other = stranger(endpoint.address(), &[]).unwrap();
    let reports = [MessageKind::State, MessageKind::Status].map(|kind| {
        let subscriber = other.declare_subscriber(keys().key(kind)).wait().unwrap();
        wait_for("report", || {
            sender.publish_state(&state(1)).unwrap();
            sender.publish_status(&status(1)).unwrap();
            subscriber.try_recv().unwrap()
        })
    });
    for sample in commands.iter().chain(&reports) {
        let found = (sample.priority(), sample.express(), sample.congestion_control());
        assert_eq!(found, (Priority::RealTime, true, CongestionControl::Drop), "{}", sample.key_expr());
    }
}

#[test]
fn files_that_cannot_protect_are_refused_before_anything_is_opened() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("controller");
    let judge = |change: &dyn Fn()| {
        ours.write(folder.path(), Role::Controller, Wanted::of(Role::Controller));
        change();
        Identity::read(folder.path(), Role::Controller, unix_now()).unwrap_err()
    };
    ours.write(folder.path(), Role::Controller, Wanted::of(Role::Controller));
    let identity = Identity::read(folder.path(), Role::Controller, unix_now()).unwrap();
    assert_eq!(identity.certificate.common_name, "tenon-controller");
    assert_eq!(identity.warning(unix_now() - 86_400.0), None);
    assert!(identity.warning(unix_now() + 86_400.0).unwrap().contains("--rotate"), "it ends in 29 days then");

    let open = judge(&|| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(place.join("key.pem"), std::fs::Permissions::from_mode(0o640)).unwrap();
    });
    assert!(matches!(open, SecurityError::ReadableByOthers { mode: 0o640, .. }), "{open}");
    assert!(open.to_string().contains("chmod 600"), "{open}");
    let of_other = judge(&|| {
        ours.write(
            folder.path(),
            Role::Controller,
            Wanted { common_name: "tenon-observer", ..Wanted::of(Role::Controller) },
        )
    });
    assert!(matches!(&of_other, SecurityError::WrongRole { found, .. } if found == "tenon-observer"), "{of_other}");
    let ended = judge(&|| {
        ours.write(
            folder.path(),
            Role::Controller,
            Wanted { from_s: -3 * DAY_S, until_s: -DAY_S, ..Wanted::of(Role::Controller) },
        )
    });
    assert!(matches!(ended, SecurityError::Expired { .. }), "{ended}");
    let early = judge(&|| {
        ours.write(folder.path(), Role::Controller, Wanted { from_s: DAY_S, ..Wanted::of(Role::Controller) })
    });
    assert!(matches!(early, SecurityError::NotYetValid { .. }), "{early}");
    let apart = judge(&|| std::fs::write(place.join("ca.pem"), &theirs.certificate).unwrap());
    assert!(matches!(&apart, SecurityError::File { what, .. } if what.contains("signed by no authority")), "{apart}");
    let nonsense = judge(&|| std::fs::write(place.join("cert.pem"), "no certificate").unwrap());
    assert!(matches!(nonsense, SecurityError::File { .. }), "{nonsense}");
    let missing = judge(&|| std::fs::remove_file(place.join("key.pem")).unwrap());
    assert!(matches!(missing, SecurityError::Missing { .. }), "{missing}");
}
