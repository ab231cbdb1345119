"""A record of the real server under load replays in the simulator with the same plans and the same tokens."""
import os
import pathlib
import random
import subprocess
import tempfile
import threading
import unittest

import grpc
from harness import CALL_SECONDS, Server, chat, main, pb, request, run_cli

SIM = os.environ["MILLRACE_SIM"]
HEADER = "x-gateway-inference-fairness-id"


def replay(path):
    return subprocess.run([SIM, "--replay", path], capture_output=True, text=True, timeout=CALL_SECONDS)


class Record(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def load(self, server, seed):
        """Calls of every kind, many at once."""
        rng = random.Random(seed)

        def one(i):
            stopping = pb.StoppingCriteria(max_new_tokens=rng.randrange(1, 60), ignore_eos=rng.random() < 0.5,
                                           stop_strings=["Pip"] if rng.random() < 0.3 else [])
            sampling = pb.SamplingParams(temperature=rng.choice([0.0, 1.0]), seed=i, num_sequences=rng.choice([1, 1, 1, 3]),
                                         presence_penalty=rng.choice([0.0, 0.0, 0.5]))
            cache = pb.CacheOptions(salt=rng.choice(["", "s"]), bypass_prefix_cache=rng.random() < 0.2)
            message = request(chat("Tell me a story about a bear named Pip. " * rng.randrange(1, 12)), temperature=None,
                              stopping=stopping, sampling=sampling, cache=cache, priority=rng.randrange(-2, 3))
            cancel = rng.random() < 0.2
            call = server.stub.Generate(message, timeout=rng.choice([0.05, CALL_SECONDS, CALL_SECONDS]),
                                        metadata=[(HEADER, rng.choice("ab"))])
            try:
                for _ in call:
                    if cancel:
                        call.cancel()
            except grpc.RpcError:
                pass

        threads = [threading.Thread(target=one, args=(i,)) for i in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def test_replays_with_the_same_actions(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        trace = self.folder / "trace.jsonl"
        # A small cache and few places, so that sequences wait and are preempted.
        flags = ["--record", trace, "--kv-cache-bytes", "2M", "--ctx", 640, "--max-num-seqs", 6, "--max-queue", 20,
                 "--gateway", "127.0.0.0/8"]
        with Server(*flags) as server:
            self.load(server, seed)
            server.terminate()
            self.assertEqual(server.wait(), 0, server.log())
        done = replay(trace)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("the same actions", done.stdout)
        lines = trace.read_text().splitlines()

        with self.subTest("a token that was another is found"):
            at = next(i for i, line in enumerate(lines) if line.startswith('["commit"') and not line.endswith("[]]")
                      and lines[i + 1].startswith('["events"'))
            head, _, tokens = lines[at].rpartition("[")
            changed = ",".join(str((int(t) + 1) % 4096) for t in tokens.rstrip("]").split(","))
            other = lines[:at] + [f"{head}[{changed}]]"] + lines[at + 1:]
            (self.folder / "other.jsonl").write_text("\n".join(other) + "\n")
            self.assertEqual(replay(self.folder / "other.jsonl").returncode, 1)

        with self.subTest("a request that is missing is found"):
            at = next(i for i, line in enumerate(lines) if line.startswith('["submit"'))
            (self.folder / "other.jsonl").write_text("\n".join(lines[:at] + lines[at + 1:]) + "\n")
            self.assertEqual(replay(self.folder / "other.jsonl").returncode, 1)

        with self.subTest("a record that is cut off in a line replays up to there"):
            (self.folder / "cut.jsonl").write_text("\n".join(lines)[:-5])
            self.assertEqual(replay(self.folder / "cut.jsonl").returncode, 0)

    def test_bad_files_are_told_in_one_line(self):
        for text, code in (("", 1), ("no json\n", 1), ("[1]\n", 1), ('["millrace-trace",2,{}]\n', 1),
                           ('["millrace-trace",9,{}]\n', 1)):
            (self.folder / "bad").write_text(text)
            done = replay(self.folder / "bad")
            self.assertEqual((done.returncode, done.stderr.count("\n")), (code, 1), done.stderr)
        self.assertEqual(replay(self.folder / "none").returncode, 2)
        done = run_cli("serve", "--model", "models/story-moe-q4_k_m.gguf", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
                       "--record", self.folder / "no such folder" / "trace")
        self.assertEqual(done.returncode, 1)
        self.assertIn("--record", done.stderr)


if __name__ == "__main__":
    main()
