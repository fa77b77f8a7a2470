//! The command line used wrongly, or in a bad place: one line that says what, why and what to do, and
//! the documented code.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use super::harness::*;
use super::healthy::Healthy;

#[test]
fn a_port_that_is_taken() {
    let server = Server::start(&[]);
    let healthy = Healthy::start(&server);
    let taken = server.address.to_string();
    let run = Process::start(server.folder.path(), psa(["serve", "--listen", &taken])).wait();
    run.expect_line(exit::FAILED, &["--listen", &taken, "in use", "stop the other server"]);
    healthy.finish(&server);
}

#[test]
fn an_address_that_cannot_be_listened_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Documentation addresses, which nobody has.
    for (address, code, part) in [
        ("192.0.2.1:9853", exit::USAGE, "token"),
        ("127.0.0.1", exit::USAGE, "HOST:PORT"),
        ("no such host:9853", exit::USAGE, "HOST:PORT"),
        ("0.0.0.0:0", exit::USAGE, "token"),
    ] {
        let run = Process::start(folder.path(), psa(["serve", "--listen", address])).wait();
        run.expect_line(code, &["--listen", part]);
    }
    // Without the warning that it would be open to everyone, which is of its log.
    let args = ["serve", "--listen", "192.0.2.1:9853", "--allow-public-without-token"];
    let args = [&args[..], &["--log-level", "error"]].concat();
    let run = Process::start(folder.path(), psa(args)).wait();
    run.expect_line(exit::FAILED, &["--listen", "192.0.2.1:9853"]);
}

#[test]
fn no_server_listens() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Bound and not listened on: refused, and nobody else gets it meanwhile.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().expect("it is bound").as_socket().expect("IP").to_string();
    for args in [
        &["pub", "t"][..],
        &["sub", "t"],
        &["topics"],
        &["topics", "create", "t"],
        &["topics", "describe", "t"],
        &["stats"],
        &["stats", "t"],
    ] {
        let mut command = psa(args);
        command.env("PSA_SERVER", &address);
        let run = Process::start(folder.path(), command).wait();
        let parts = ["cannot connect to", &address, "refused", "psa serve", "--server"];
        run.expect_line(exit::UNREACHABLE, &parts);
    }
    // The same said with a flag.
    let run = Process::start(folder.path(), psa(["topics", "--server", &address])).wait();
    run.expect_line(exit::UNREACHABLE, &[&address]);
}

#[test]
fn a_server_that_ends_the_connection_without_a_word() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it listens").to_string();
    // Everyone who comes is shown the API.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    for args in [&["pub", "t"][..], &["sub", "t"], &["topics"], &["stats"]] {
        let mut command = psa(args);
        command.env("PSA_SERVER", &address);
        Process::start(folder.path(), command)
            .wait()
            .expect_line(exit::UNREACHABLE, &["connection"]);
    }
}

#[test]
fn files_that_cannot_be_read() {
    let server = Server::start(&[]);
    let healthy = Healthy::start(&server);
    let good = server.path("good");
    fs::write(&good, "one\ntwo\n").expect("the folder is ours");
    let good = good.to_str().expect("a plain path");
    let folder = server.folder.path().to_str().expect("a plain path");
    let missing = server.path("missing");
    let missing = missing.to_str().expect("a plain path");
    // All are looked at before anything is published, also after a good one.
    for (file, code, part) in
        [(missing, exit::FAILED, "no such file"), (folder, exit::USAGE, "it is a folder")]
    {
        for args in
            [&["pub", "t", file][..], &["pub", "t", good, file], &["pub", "--whole", "t", file]]
        {
            server.run(args).expect_line(code, &[file, part]);
        }
    }
    let locked = server.path("locked");
    fs::write(&locked, "secret").expect("the folder is ours");
    let nobody = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    fs::set_permissions(&locked, nobody).expect("the file is ours");
    // Root may read everything.
    if fs::File::open(&locked).is_err() {
        let run = server.run(&["pub", "t", good, locked.to_str().expect("a plain path")]);
        run.expect_line(exit::FAILED, &["locked", "permission denied", "check its owner and mode"]);
    }
    assert!(server.look_at("t").is_err(), "nothing was published");
    // One that can be opened and then fails: what was read before it is published, and it says so.
    let failing = "/proc/self/mem";
    if Path::new(failing).exists() {
        let run = server.run(&["pub", "t", good, failing]);
        let told = ["2 records were acknowledged, the last at offset 1"];
        run.expect_line(exit::FAILED, &[&[failing][..], &told].concat());
        let run = server.run(&["sub", "t", "--exit-at-end"]).expect(exit::DONE);
        assert_eq!(run.text(), "one\ntwo\n");
    }
    healthy.finish(&server);
}

#[test]
fn input_that_ends_within_a_record() {
    let server = Server::start(&[]);
    let healthy = Healthy::start(&server);
    let whole = b"\x03\0\0\0one\0\0\0\0\x05\0\0\0three";
    for cut in 0..whole.len() {
        let topic = format!("cut at {cut}");
        let run = server.publish(&["pub", "--length-prefixed", &topic], &whole[..cut]);
        let (complete, torn) = match cut {
            0 => (0, false),
            1..7 => (0, true),
            7 => (1, false),
            8..11 => (1, true),
            11 => (2, false),
            _ => (2, true),
        };
        if torn {
            let record = format!("record {}", complete + 1);
            run.expect_line(exit::FAILED, &["standard input", &record, "--length-prefixed wants"]);
        } else {
            run.expect(exit::DONE);
        }
        let next =
            server.look_at(&topic).map_or(0, |stats| stats["next_offset"].as_u64().unwrap_or(9));
        assert_eq!(next, complete, "cut at {cut}");
    }
    // A length that nobody can mean.
    let run = server.publish(&["pub", "--length-prefixed", "t"], b"\xff\xff\xff\xffx");
    run.expect_line(exit::REFUSED, &["record 1", "larger", "limit.record"]);
    healthy.finish(&server);
}

#[test]
fn files_that_cannot_be_written() {
    let server = Server::start(&[]);
    let healthy = Healthy::start(&server);
    server.publish(&["pub", "t"], b"one\n").expect(exit::DONE);
    let folder = server.folder.path().to_str().expect("a plain path");
    let nowhere = format!("{folder}/missing/file");
    let foreign = format!("{folder}/foreign");
    fs::write(&foreign, "something precious").expect("the folder is ours");
    let state = format!("{folder}/state");
    for (args, code, parts) in [
        (&["--output", folder][..], exit::FAILED, [folder, "directory"]),
        (&["--output", &nowhere], exit::FAILED, [&nowhere, "no such file"]),
        (&["--state", &nowhere], exit::FAILED, [&nowhere, "no such file"]),
        (&["--state", folder], exit::FAILED, [folder, "directory"]),
        (&["--state", &foreign], exit::FAILED, ["foreign", "not a state file"]),
        (
            &["--state", &state, "--output", &foreign],
            exit::FAILED,
            ["foreign", "has content already"],
        ),
        (&["--state", &state, "--output", "/dev/null"], exit::USAGE, ["/dev/null", "regular file"]),
    ] {
        eprintln!("{args:?}");
        let run = server.run(&[&["sub", "t", "--exit-at-end"], args].concat());
        if code == exit::FAILED && args[1] == nowhere && args[0] == "--state" {
            // The record may be on standard output before the state is found to be impossible.
            assert_eq!(run.code, code, "{}", run.stderr);
            assert!(parts.iter().all(|part| run.stderr.contains(part)), "{}", run.stderr);
        } else {
            run.expect_line(code, &parts);
        }
    }
    assert_eq!(fs::read(&foreign).expect("it is there"), b"something precious");
    if Path::new("/dev/full").exists() {
        let full = fs::File::options().write(true).open("/dev/full").expect("it is there");
        let command = server.command(&["sub", "t"]);
        let run = Process::start_with_output(server.folder.path(), command, full).wait();
        run.expect_line(exit::FAILED, &["standard output", "no space left", "free some space"]);
    }
    // A state is of one topic, and of one process.
    let output = format!("{folder}/output");
    let files = ["--state", &state, "--output", &output];
    let mut first = server.spawn(&[&["sub", "t"], &files[..]].concat());
    eventually("the first to write", || match length(Path::new(&output)) {
        0 => Err(first.stderr()),
        _ => Ok(()),
    });
    let run = server.run(&[&["sub", "t"], &files[..]].concat());
    run.expect_line(exit::FAILED, &["output", "another process uses it", "end that one"]);
    assert!(first.is_running(), "{}", first.stderr());
    first.signal(rustix::process::Signal::TERM);
    first.wait().expect(exit::TERMINATE);
    let run = server.run(&[&["sub", "other"], &files[..]].concat());
    run.expect_line(exit::USAGE, &["state", "topic `t`", "one state file for each topic"]);
    healthy.finish(&server);
}
