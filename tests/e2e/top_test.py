"""millrace top: in a real terminal (tmux), and as one picture for scripts."""
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import unittest

import grpc

from harness import BINARY, START_SECONDS, Server, expect_status, generate, main, request, run_cli

CALLERS = 5


class Terminal:
    """A shell in a tmux server of its own; a context manager that ends both."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="millrace-tmux-")
        self.tmux("new-session", "-d", "-x", 100, "-y", 30, "env PS1='ready> ' sh")

    def tmux(self, *arguments):
        socket = pathlib.Path(self.folder.name) / "socket"
        command = ["tmux", "-S", socket, "-f", "/dev/null", "-u", *map(str, arguments)]
        return subprocess.run(command, check=True, text=True, capture_output=True).stdout

    def type(self, line):
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def key(self, name):
        self.tmux("send-keys", name)

    def screen(self):
        return self.tmux("capture-pane", "-p")

    def wait_for(self, pattern, absent=None):
        """The screen, once it shows what is asked for and no longer what must be gone."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            screen = self.screen()
            if re.search(pattern, screen, re.M) and not (absent and re.search(absent, screen)):
                return screen
            time.sleep(0.05)
        raise AssertionError(f"never saw {pattern!r} without {absent!r}; the last screen:\n{self.screen()}")

    def child(self):
        """The process that the shell waits for."""
        shell = self.tmux("display-message", "-p", "#{pane_pid}").strip()
        child, = pathlib.Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        return int(child)

    def state(self):
        """(whether a program has the other screen, whether the cursor shows)"""
        return tuple(self.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}").split())

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.tmux("kill-server")
        self.folder.cleanup()


class Top(unittest.TestCase):
    def load(self, server):
        """CALLERS requests under way, always, until the test ends."""
        command = [BINARY, "loadgen", "--target", server.target, "--concurrency", str(CALLERS), "--requests", "1000000",
                   "--output-tokens", "400"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def end():
            process.kill()
            process.wait()
        self.addCleanup(end)

    def start(self, terminal, *flags):
        terminal.wait_for("^ready>")
        terminal.type("stty -g >before; echo mark-$((40+2))")
        terminal.wait_for("^mark-42")
        terminal.type(" ".join(map(str, (BINARY, "top", *flags, ";", "echo", "exit=$?"))))

    def leave(self, terminal, key):
        """`key` ends it with 0, and the terminal is what it was: screen, cursor, echo, modes."""
        terminal.key(key)
        screen = terminal.wait_for(r"^exit=\d+", absent="KV cache")
        self.assertIn("exit=0", screen)
        self.assertIn("mark-42", screen)
        self.assertEqual(terminal.state(), ("0", "1"))
        terminal.type("stty -g | cmp - before && echo same-$((40+3))")
        self.assertIn("stty -g | cmp", terminal.wait_for("^same-43"))  # and what is typed shows

    def test_it_shows_a_real_load_and_gives_the_terminal_back(self):
        with Server("--log-level", "warning") as server, Terminal() as terminal:
            terminal.type(f"cd {terminal.folder.name}")
            self.load(server)
            self.start(terminal, "--target", server.target, "--metrics", server.metrics_address)
            screen = terminal.wait_for(rf"^running +{CALLERS}$")
            self.assertEqual(terminal.state(), ("1", "0"))
            for pattern in (r"^model +\S+.*context 2048", r"^device +cpu \(", r"^waiting +0 +oldest 0.0 s",
                            r"^KV cache +[\d.]+ % +[█░]{40}$", r"^blocks +\d+ used, \d+ cached, of \d+$",
                            rf"^millrace .*{server.target} +serving"):
                self.assertRegex(screen, re.compile(pattern, re.M))
            # The picture is live: a second point of the line, and latencies of the calls that came since.
            screen = terminal.wait_for(r"^tok/s +[1-9]\d*\.\d +.*[▁-█]{2}")
            terminal.wait_for(r"^between tokens +[\d.]+ m?s +[\d.]+ m?s +[\d.]+ m?s$")
            self.assertRegex(screen, re.compile(r"^errors +none", re.M))
            self.leave(terminal, "q")

    def test_it_waits_for_a_server_that_went_away_and_ctrl_c_leaves(self):
        with Server() as server, Terminal() as terminal:
            terminal.type(f"cd {terminal.folder.name}")
            self.start(terminal, "--target", server.target)
            terminal.wait_for("serving$")
            server.process.kill()
            server.wait()
            terminal.wait_for("^" + re.escape(server.target) + r" does not answer .*, for \d+ s; trying again")
            with Server(grpc_port=server.target.rsplit(":", 1)[1]):
                terminal.wait_for("^running +0", absent="does not answer")
            self.leave(terminal, "C-c")

    def test_every_way_out_gives_the_terminal_back(self):
        with Server() as server:
            for key in ("q", "C-c", "C-\\"):
                with self.subTest(key), Terminal() as terminal:
                    terminal.type(f"cd {terminal.folder.name}")
                    self.start(terminal, "--target", server.target)
                    terminal.wait_for("serving$")
                    self.leave(terminal, key)

    def refuse(self, server, times):
        for _ in range(times):
            with expect_status(self, grpc.StatusCode.NOT_FOUND):
                list(server.stub.Generate(request(model="another")))

    def test_a_server_that_was_started_anew_is_counted_from_zero(self):
        most = 10  # errors of the first run: more than are made of the second
        with Server() as server, Terminal() as terminal:
            ports = dict(zip(("grpc_port", "metrics_port"),
                             (address.rsplit(":", 1)[1] for address in (server.target, server.metrics_address))))
            terminal.type(f"cd {terminal.folder.name}; set +m")  # so that a stopped child does not come back to the shell
            self.refuse(server, most)  # before its first look, with which it compares all later ones
            self.start(terminal, "--target", server.target, "--metrics", server.metrics_address)
            terminal.wait_for(r"^last \d+ s")
            # It must not see that nobody was there for a moment.
            os.kill(terminal.child(), signal.SIGSTOP)
            server.process.kill()
            server.wait()
            with Server(**ports) as again:
                os.kill(terminal.child(), signal.SIGCONT)
                terminal.wait_for("^errors +none$")
                # Those before its first look at the new run do not count; there are some for later ones.
                for _ in range(most - 1):
                    self.refuse(again, 1)
                    looks = time.monotonic() + 2
                    while time.monotonic() < looks:
                        if re.search(r"^errors +NOT_FOUND [1-9]$", terminal.screen(), re.M):
                            self.leave(terminal, "q")
                            return
                        time.sleep(0.05)
                self.fail(terminal.screen())

    def test_once_prints_one_plain_picture(self):
        with Server() as server:
            for _ in range(3):
                generate(server)
            self.refuse(server, 1)
            done = run_cli("top", "--target", server.target, "--metrics", server.metrics_address, "--once")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertNotIn("\033", done.stdout)
            for pattern in ("^running +0$", r"^since its start +p50", r"^first token +[\d.]+ m?s +[\d.]+ m?s",
                            "^errors +NOT_FOUND 1$"):
                self.assertRegex(done.stdout, re.compile(pattern, re.M))
            target = server.target
        done = run_cli("top", "--target", target, "--once")
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1), done.stderr)
        self.assertIn("UNAVAILABLE", done.stderr)

    def test_without_a_terminal_it_says_what_would_work(self):
        done = run_cli("top", "--target", "127.0.0.1:1")
        self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))
        self.assertIn("--once", done.stderr)


if __name__ == "__main__":
    main()
