//! `make install` from a clone that is then moved away: what was installed must run on its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAMS: [&str; 5] = ["tenon", "tenon-train", "tenon-calibrate", "tenon-bridge", "tenon-sim-server"];
/// The programs that simulate; they are linked against libmujoco.
const SIMULATING: [&str; 2] = ["tenon-train", "tenon-sim-server"];

/// The programs lie beside this test's folder: target/release/deps/this → target/release.
fn built_programs() -> PathBuf {
    let built = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    for program in PROGRAMS {
        assert!(
            built.join(program).is_file(),
            "{} is not built: 'make test' builds it first",
            built.join(program).display()
        );
    }
    built
}

/// Copies a file or a folder, links as links.
fn copy(source: &Path, target: &Path) {
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    let status = Command::new("cp").arg("-a").args([source, target]).status().unwrap();
    assert!(status.success(), "cp -a {} {}", source.display(), target.display());
}

/// A clone with everything `make install-files` reads: what git knows of it, what the set-up fetched and what was built.
fn clone_into(clone: &Path) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    // Of .deps only what the set-up put there: tools for comparisons may lie beside it.
    let fetched = [".deps/lib", ".deps/gym", ".deps/licenses"];
    for name in
        ["Makefile", "LICENSE", "Cargo.toml", "scripts", "systemd", "configs", "docs"].into_iter().chain(fetched)
    {
        copy(&repository.join(name), &clone.join(name));
    }
    let built = built_programs();
    for program in PROGRAMS {
        copy(&built.join(program), &clone.join("target/release").join(program));
    }
}

/// Installs and moves the clone away; returns the temporary folder and the prefix in it.
fn install_and_move_the_clone_away() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (clone, prefix) = (folder.path().join("clone"), folder.path().join("prefix"));
    clone_into(&clone);
    let output = Command::new("make")
        .args(["--no-print-directory", "install-files", "DESTDIR=", "CPUS="])
        .arg(format!("PREFIX={}", prefix.display()))
        .current_dir(&clone)
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .unwrap();
    assert!(output.status.success(), "make install-files: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&clone, folder.path().join("moved")).unwrap();
    (folder, prefix)
}

/// Runs an installed program from `/` with nothing of this environment.
fn run_installed(prefix: &Path, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(prefix.join("bin").join(program))
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", prefix)
        .envs(environment.iter().copied())
        .current_dir("/")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn installed_programs_run_without_the_clone() {
    let (_folder, prefix) = install_and_move_the_clone_away();

    for program in PROGRAMS {
        let version = run_installed(&prefix, program, &["--version"], &[]);
        assert!(version.status.success(), "{program} --version: {}", text(&version.stderr));
        assert_eq!(text(&version.stdout).trim(), format!("{program} {}", env!("CARGO_PKG_VERSION")));
        let help = run_installed(&prefix, program, &["--help"], &[]);
        assert!(help.status.success(), "{program} --help: {}", text(&help.stderr));
        assert!(text(&help.stdout).contains("Usage"), "{program} --help: {}", text(&help.stdout));

        // The loader itself says which libraries it takes: `libmujoco.so.3.3.7 => /prefix/bin/../lib/… (0x…)`. This
        // checkout's own copy is still there and must not be the one.
        let loaded = text(&run_installed(&prefix, program, &[], &[("LD_TRACE_LOADED_OBJECTS", "1")]).stdout);
        let mujoco: Vec<_> = loaded.lines().filter(|line| line.contains("libmujoco.so")).collect();
        let installed = format!("=> {}/", prefix.display());
        assert!(mujoco.iter().all(|line| line.contains(&installed)), "{program} loads {mujoco:?}");
        assert!(
            !mujoco.is_empty() || !SIMULATING.contains(&program),
            "{program} is linked without libmujoco:\n{loaded}"
        );
    }
}

#[test]
fn installation_is_complete_and_uninstalls_without_a_trace() {
    let (folder, prefix) = install_and_move_the_clone_away();
    for file in [
        "lib/libmujoco.so.3.3.7",
        "lib/libonnxruntime.so.1.32.0",
        "lib/systemd/system/tenon-bridge.service",
        "lib/systemd/system/tenon@.service",
        "lib/sysusers.d/tenon.conf",
        "share/tenon/configs/robot.toml",
        "share/tenon/gym/hopper.xml",
        "share/tenon/gym/walker2d.xml",
        "share/tenon/gym/walker2d_v5.xml",
        "share/tenon/gym/half_cheetah.xml",
        "share/doc/tenon/LICENSE",
        "share/doc/tenon/licenses/mujoco-LICENSE",
        "share/doc/tenon/licenses/onnxruntime-LICENSE",
        "share/doc/tenon/licenses/gymnasium-LICENSE",
    ] {
        assert!(prefix.join(file).is_file(), "{file} was not installed");
    }
    let controller = fs::read_to_string(prefix.join("lib/systemd/system/tenon@.service")).unwrap();
    assert!(controller.contains(&format!("ExecStart={}/bin/tenon serve", prefix.display())), "{controller}");

    let status = Command::new("make")
        .args(["--silent", "uninstall", "DESTDIR="])
        .arg(format!("PREFIX={}", prefix.display()))
        .current_dir(folder.path().join("moved"))
        .status()
        .unwrap();
    assert!(status.success());
    assert!(!prefix.exists(), "uninstall left something in {}", prefix.display());
}

#[test]
fn installing_refuses_a_relative_prefix_and_missing_programs() {
    let folder = tempfile::tempdir().unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/install.sh");
    let refusal = |prefix: &str| {
        let output = Command::new(&scripts)
            .arg("install")
            .env("PREFIX", prefix)
            .env("DESTDIR", "")
            .env("BUILT", folder.path().join("nothing built"))
            .output()
            .unwrap();
        assert!(!output.status.success());
        let said = text(&output.stderr);
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    assert!(refusal("opt/tenon").contains("absolute"));
    assert!(refusal("/opt/two words").contains("PREFIX=/opt/two words: only letters"));
    let prefix = folder.path().join("prefix");
    assert!(refusal(prefix.to_str().unwrap()).contains("make build"));
    assert!(!prefix.exists());
}
