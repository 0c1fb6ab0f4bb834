"""Other users of the machine: they may neither write what shardsync reads, nor learn secrets."""

from __future__ import annotations

import json
import os
import stat
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.cli.main import run
from shardsync.control.processes import end, find
from shardsync.errors import StateUnusable
from shardsync.layout import StateDirectory
from tests.support.nodes import RsyncDaemon, Sshd, free_port
from tests.support.settings_files import load, problems, settings_text, write_settings

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
STRANGER = 65534
SECRET = "tell-nobody-7f3a"
OPTION = "an-ssh-option-8c21"
_OTHERS_MAY_WRITE = "others may write it (its mode is {mode}), and root would run what it says"


# -- the settings


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    ("mode", "owner", "group", "message", "remedy"),
    [
        (0o666, 0, 0, _OTHERS_MAY_WRITE.format(mode="0666"), "chmod go-w $/{file}"),
        (0o664, 0, STRANGER, _OTHERS_MAY_WRITE.format(mode="0664"), "chmod go-w $/{file}"),
        (
            0o644,
            STRANGER,
            0,
            "belongs to user nobody, and root would run what it says",
            "chown root $/{file}",
        ),
    ],
)
@pytest.mark.parametrize("file", ["shardsync.toml", "more.toml"])
def test_root_believes_no_settings_that_others_may_write(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    mode: int,
    owner: int,
    group: int,
    message: str,
    remedy: str,
) -> None:
    """Neither in the main file nor in an included one; exit 10, in words."""
    text = 'include_files = ["more.toml"]\n' + settings_text(tmp_path)
    main = write_settings(tmp_path, text)
    (tmp_path / "more.toml").write_text('[[node]]\nname = "web9"\ntarget = "/srv/web9"\n')
    assert run(["config", "get", "node.web9.target", "--config", str(main)]) == 0
    os.chown(tmp_path / file, owner, group)
    (tmp_path / file).chmod(mode)
    assert run(["check", "--config", str(main)]) == 10
    said = capsys.readouterr().err.replace(str(tmp_path), "$")
    assert said == f"shardsync: $/{file}: {message}\n    {remedy.format(file=file)}\n" + _HINT


_HINT = "  correct the settings file, then `shardsync check`\n"


@pytest.mark.root
@needs_root
def test_who_became_root_by_sudo_may_use_his_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He may do as root whatever they say."""
    main = write_settings(tmp_path, settings_text(tmp_path))
    os.chown(main, STRANGER, 0)
    assert run(["config", "get", "tree.root", "--config", str(main)]) == 10
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    assert run(["config", "get", "tree.root", "--config", str(main)]) == 0


def test_a_fifo_for_an_included_file_is_refused_at_once(tmp_path: Path) -> None:
    """Nobody waits for a writer that never comes."""
    os.mkfifo(tmp_path / "more.toml")
    write_settings(tmp_path, "")
    text = 'include_files = ["more.toml"]\n' + settings_text(tmp_path)
    main = write_settings(tmp_path, text)
    assert run(["check", "--config", str(main)]) == 10


@pytest.mark.root
@needs_root
def test_a_password_file_of_others_is_refused_by_what_its_symlink_leads_to(
    tmp_path: Path,
) -> None:
    """A symlink counts as the file itself: owner and mode are that file's."""
    secret, link = tmp_path / "secret", tmp_path / "link"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    link.symlink_to(secret)
    node = f'name = "web1"\ntarget = "rsync://h/m"\npassword_file = "{link}"'
    assert load(tmp_path, node=node).nodes[0].password_file == link
    secret.chmod(0o640)
    assert [found[1] for found in problems(tmp_path, node=node)] == [
        "others may read it: its mode is 0640"
    ]
    secret.chmod(0o600)
    os.chown(secret, STRANGER, 0)
    assert [found[1] for found in problems(tmp_path, node=node)] == [
        "belongs to user nobody, and rsync runs as root"
    ]


# -- the state directory


def modes(folder: Path) -> dict[str, int]:
    """What others may do with it and with anything in it, where that is not nothing."""
    found = {".": stat.S_IMODE(folder.stat().st_mode)}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            found[str(path.relative_to(folder))] = stat.S_IMODE(path.lstat().st_mode)
    return {name: mode for name, mode in found.items() if mode & 0o077}


def test_an_open_state_directory_is_closed(tmp_path: Path) -> None:
    """A mode that lets others in is mended: on one that is new, and on one that was used."""
    state = StateDirectory(tmp_path / "state")
    state.path.mkdir()
    state.path.chmod(0o755)
    assert state.make() == 0o755
    for path in (state.path, state.locks):
        path.chmod(0o777)
    assert state.make() == 0o777
    assert modes(state.path) == {}
    assert state.make() == 0o700


def test_a_directory_that_is_used_otherwise_is_left_as_it_is(tmp_path: Path) -> None:
    """`dir = "/etc"` by mistake, or from a stranger's settings, closes nothing to anybody."""
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o755)
    (folder / "passwd").write_text("")
    with pytest.raises(StateUnusable, match="used for something else: its mode is 0755"):
        StateDirectory(folder).make()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert os.listdir(folder) == ["passwd"]
    folder.chmod(0o700)
    assert StateDirectory(folder).make() == 0o700


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("what", [".", "locks", "logs", "state.db", "locks/up.lock"])
def test_what_belongs_to_another_user_is_not_touched(tmp_path: Path, what: str) -> None:
    """Root follows nothing that somebody else put there: not a folder, a file, nor a symlink."""
    state = StateDirectory(tmp_path / "state")
    state.make()
    target = tmp_path / "precious"
    target.mkdir(mode=0o755)
    planted = state.path / what
    if what in {"state.db", "locks/up.lock"}:
        planted.symlink_to(target)
    elif what in {"locks", "logs"}:
        planted.rmdir()
        planted.symlink_to(target)
    os.chown(planted, STRANGER, STRANGER, follow_symlinks=False)
    state.path.chmod(0o777)
    with pytest.raises(StateUnusable, match=r"belongs to user nobody, .* runs as root"):
        state.make()
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


# -- a whole instance


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Settings with a daemon that asks for a password and an ssh Node; its folder."""
    with (
        tempfile.TemporaryDirectory(prefix="sec.") as name,
        RsyncDaemon(
            workspace=(folder := Path(name)), path=folder / "web1", user="sync", password=SECRET
        ) as daemon,
        Sshd(workspace=folder) as sshd,
    ):
        for made in ("tree", "web1", "web2", "state"):
            (folder / made).mkdir()
        (folder / "tree" / "page").write_text("page")
        (folder / "state").chmod(0o777)
        options = [*sshd.ssh_options, "-o", f"SetEnv=WORD={OPTION}"]
        (folder / "shardsync.toml").write_text(
            f'[tree]\nroot = "{folder / "tree"}"\n[state]\ndir = "{folder / "state"}"\n'
            f'[shards]\ncount = 1\n[metrics]\nlisten = "127.0.0.1:{free_port()}"\n'
            f'[[node]]\nname = "web1"\ntarget = "{daemon.url}"\n'
            f'password_file = "{daemon.password_file}"\n'
            f'[[node]]\nname = "web2"\ntarget = "127.0.0.1:{folder / "web2"}"\n'
            f"ssh_options = {json.dumps(options)}\n"
        )
        monkeypatch.chdir(folder)
        monkeypatch.delenv("SHARDSYNC_CONFIG", raising=False)
        state = StateDirectory(folder / "state")
        try:
            yield folder
        finally:
            run(["down"])
            end(find(state), state, term_seconds=5)


def processes() -> Iterator[bytes]:
    """The command line and the environment of every process of the machine."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            for file in ("cmdline", "environ"):
                try:
                    yield Path("/proc", name, file).read_bytes()
                except OSError:
                    continue


def test_a_running_instance_keeps_its_files_and_its_secrets(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The state directory is its user's alone, and a password is in its own file and nowhere else.

    What `ssh_options` say is in ssh's command line, as ssh has it so, and nowhere else either.
    """
    assert run(["up"]) == 0
    assert run(["flush", "--timeout", "60s"]) == 0
    assert "was writable by others: its mode was 0777, it is 0700 now" in capsys.readouterr().err
    assert (site / "web1" / "page").read_text() == (site / "web2" / "page").read_text() == "page"
    assert modes(site / "state") == {}
    for words in (["status"], ["status", "--json"], ["check"], ["journal"], ["verify"]):
        assert run(words) == 0
    config = (site / "shardsync.toml").read_text()
    port = config.partition('listen = "')[2].partition('"')[0]
    with urllib.request.urlopen(f"http://{port}/metrics", timeout=10) as answer:
        exposed = answer.read()
    said = capsys.readouterr()
    kept = [path.read_bytes() for path in (site / "state").rglob("*") if path.is_file()]
    for told in (exposed, said.out.encode(), said.err.encode(), *kept):
        assert SECRET.encode() not in told
        assert OPTION.encode() not in told
    running = list(processes())
    assert any(OPTION.encode() in told for told in running), "the look at processes finds nothing"
    assert not any(SECRET.encode() in told for told in running)
