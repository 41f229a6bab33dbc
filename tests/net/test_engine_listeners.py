"""Where a server listens, who stands before it, and who is let in."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from smtpd_core.net import Door, Engine, Guard, GuardSettings, ListenerSettings
from smtpd_core.net.listeners import bind, inherited_descriptors, split_bind
from tests.net.echo import Client, Club, serving

ROOT = Path(__file__).resolve().parents[2]


def door(bind: str, **more) -> Door:
    return Door(ListenerSettings(bind=bind, tls="none", **more))


@pytest.mark.parametrize(
    "bind, host, port",
    [
        ("127.0.0.1:25", "127.0.0.1", 25),
        ("[::1]:2525", "::1", 2525),
        (":25", "", 25),
        ("*:25", "", 25),
        ("mx.test:0", "mx.test", 0),
    ],
)
def test_a_bind_is_host_and_port(bind, host, port):
    assert split_bind(bind) == (host, port)


@pytest.mark.parametrize("bind", ["25", "localhost", "a:b", "::1:25", "h:65536", "h:-1", "h:²"])
def test_what_is_no_bind_is_named(bind):
    with pytest.raises(ValueError, match="listener"):
        split_bind(bind)


def test_several_listeners_serve_at_once(tmp_path):
    path = str(tmp_path / "smtp.sock")
    doors = [door("127.0.0.1:0"), door("[::1]:0"), door(":0"), door(f"unix:{path}")]
    with serving(Club(), *doors) as engine:
        v4, v6, both, unix = engine.addresses
        assert v4[1] > 0 and unix == path
        assert [listener.text for listener in engine.listeners][1] == f"[::1]:{v6[1]}"
        for address in (v4, v6, ("127.0.0.1", both[1]), ("::1", both[1]), unix):
            with Client(address) as client:
                assert client.ask("x") == "250 x"
        assert stat.S_ISSOCK(os.stat(path).st_mode)
    assert not os.path.exists(path)


def test_the_peer_is_known_by_its_plain_ipv4_address_on_a_dual_stack_socket():
    club = Club()
    with serving(club, door(":0")) as engine:
        with Client(("127.0.0.1", engine.addresses[0][1])) as client:
            assert client.ask("x") == "250 x"
        assert club.talks[0].peer.address == "127.0.0.1"


def test_a_stale_unix_socket_is_replaced_and_a_living_one_is_not(tmp_path):
    path = str(tmp_path / "smtp.sock")
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(path)
    with serving(Club(), door(f"unix:{path}")):
        with pytest.raises(OSError, match="listener unix:"):
            Engine([door(f"unix:{path}")], Club().open).start()
        with Client(path) as client:
            assert client.ask("x") == "250 x"


def test_an_ordinary_file_is_never_removed_for_a_unix_socket(tmp_path):
    path = tmp_path / "precious"
    path.write_text("mail")
    with pytest.raises(OSError):
        Engine([door(f"unix:{path}")], Club().open).start()
    assert path.read_text() == "mail"


def test_one_bad_listener_closes_the_good_ones():
    with serving(Club()) as other:
        taken = "{}:{}".format(*other.addresses[0])
        with socket.create_server(("127.0.0.1", 0)) as probe:
            free = probe.getsockname()[1]
        with pytest.raises(OSError, match=taken):
            Engine([door(f"127.0.0.1:{free}"), door(taken)], Club().open).start()
        with serving(Club(), door(f"127.0.0.1:{free}")):
            pass


def test_inherited_descriptors_by_number_and_name():
    found = inherited_descriptors({"LISTEN_FDS": "2", "LISTEN_PID": "7", "LISTEN_FDNAMES": "smtp:lmtp"}, 7)
    assert found == {"3": 3, "4": 4, "smtp": 3, "lmtp": 4}
    assert inherited_descriptors({"LISTEN_FDS": "2", "LISTEN_PID": "8"}, 7) == {}
    assert inherited_descriptors({}, 7) == {}


def test_a_socket_can_be_inherited_through_listen_fds():
    script = """
import os, sys
from smtpd_core.net import Door, Engine, ListenerSettings
from tests.net.echo import Club
os.environ["LISTEN_PID"] = str(os.getpid())
engine = Engine([Door(ListenerSettings(bind="fd:smtp", tls="none"))], Club().open)
engine.start()
print(engine.addresses[0][1], flush=True)
sys.stdin.readline()
engine.stop(5)
"""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        descriptor = listening.fileno()
        program = subprocess.Popen(
            [sys.executable, "-c", f"import os; os.dup2({descriptor}, 3)\n" + script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[descriptor],
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "smtp"},
        )
        assert program.stdout is not None and program.stdin is not None
        assert int(program.stdout.readline()) == listening.getsockname()[1]
        with Client(listening.getsockname()) as client:
            assert client.ask("x") == "250 x"
        program.communicate("\n", 10)
        assert program.returncode == 0


def test_a_missing_inherited_socket_is_named():
    with pytest.raises(ValueError, match="fd:smtp"):
        Engine([door("fd:smtp")], Club().open).start()


@pytest.mark.parametrize("count", ["many", "-1", "1.5", "99999999999", "\u0663"])
def test_a_number_of_inherited_sockets_that_is_none_is_named(count):
    """The start hung while it counted to it, or spoke of int()."""
    with pytest.raises(ValueError, match=r"LISTEN_FDS: .* is no number of inherited sockets"):
        inherited_descriptors({"LISTEN_FDS": count}, 7)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: open(os.devnull, "rb"), "is no socket"),  # noqa: SIM115 - the test closes it
        (lambda: socket.socket(type=socket.SOCK_DGRAM), "is no listening stream socket"),
        (lambda: socket.socket(), "is no listening stream socket"),
    ],
    ids=["file", "datagrams", "not listening"],
)
def test_an_inherited_descriptor_that_nobody_could_connect_to_is_named(made, reason):
    """One that did not listen was announced and never reached."""
    with made() as file, pytest.raises(ValueError, match=f"listener fd:smtp: descriptor [0-9]+ {reason}"):
        bind(door("fd:smtp"), {"smtp": os.dup(file.fileno())})


# -- PROXY


def test_a_proxy_header_says_who_the_client_is():
    club = Club()
    with serving(club, door("127.0.0.1:0", proxy_protocol=True)) as engine:
        client = Client(engine.addresses[0], greets=False)
        client.socket.sendall(b"PROXY TCP4 203.0.113.9 192.0.2.1 4000 25\r\nearly\n")
        assert client.read() == "220 early"
        assert client.read() == "250 early"
        peer = club.talks[0].peer
        assert (peer.address, peer.port, peer.proxy) == ("203.0.113.9", 4000, "127.0.0.1")
        client.close()


def test_a_proxy_header_may_come_byte_by_byte():
    club = Club()
    with serving(club, door("127.0.0.1:0", proxy_protocol=True)) as engine:
        client = Client(engine.addresses[0], greets=False)
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"PROXY TCP6 2001:db8::1 ::1 4000 25\r\n":
            client.socket.sendall(bytes([byte]))
        assert client.read() == "220 hello"
        assert club.talks[0].peer.address == "2001:db8::1"
        client.close()


def test_a_malformed_proxy_header_closes_without_a_word():
    club = Club()
    with serving(club, door("127.0.0.1:0", proxy_protocol=True)) as engine:
        client = Client(engine.addresses[0], greets=False)
        client.socket.sendall(b"EHLO there\r\n")
        assert client.read() == ""
        client.close()
        assert club.talks == []
    assert engine.guard.connections == 0


def test_a_proxy_header_is_believed_only_from_trusted_networks():
    with serving(Club(), door("127.0.0.1:0", proxy_protocol=True, proxy_from=("192.0.2.0/24",))) as engine:
        assert Client(engine.addresses[0]).greeting.startswith("554 5.7.1 ")


def test_source_rules_apply_to_the_client_behind_the_proxy():
    guard = Guard(GuardSettings(block=("203.0.113.0/24",), max_per_source=1))
    with serving(Club(), door("127.0.0.1:0", proxy_protocol=True), guard=guard) as engine:

        def come(address: str) -> Client:
            client = Client(engine.addresses[0], greets=False)
            client.socket.sendall(f"PROXY TCP4 {address} 192.0.2.1 4000 25\r\n".encode())
            client.greeting = client.read()
            return client

        assert come("203.0.113.9").greeting.startswith("554 5.7.1 ")
        first = come("198.51.100.1")
        assert first.greeting == "220 hello"
        assert come("198.51.100.1").greeting.startswith("421 4.3.2 ")
        assert come("198.51.100.2").greeting == "220 hello"
        first.close()


def test_pause_keeps_newcomers_waiting_and_resume_lets_them_in():
    club = Club()
    with serving(club) as engine, Client(engine.addresses[0]) as early:
        engine.pause()
        assert early.ask("x") == "250 x"
        late = Client(engine.addresses[0], greets=False)
        assert early.ask("y") == "250 y"
        late.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.socket.recv(100)
        late.socket.settimeout(10)
        engine.resume()
        assert late.socket.recv(100) == b"220 hello\n"
        late.close()
