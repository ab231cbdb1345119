"""The command line as a person meets it: help, exit codes, one-line errors."""
import concurrent.futures
import hashlib
import json
import math
import os
import pathlib
import re
import signal
import struct
import sys
import tempfile
import unittest

import grpc
import numpy

from harness import MODEL, ROOT, Server, generate, generate_in_process, main, pb_grpc, run_cli

sys.path.insert(0, str(ROOT / "tests/golden"))
import tiny_models  # noqa: E402

COMMANDS = ["serve", "generate", "logits", "tokenize", "inspect", "bench", "client", "loadgen", "top", "capacity"]


class CommandLine(unittest.TestCase):
    def one_line(self, done, code, *words):
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_help_lists_every_command_and_every_command_helps(self):
        listed = run_cli("--help").stdout
        for command in COMMANDS:
            self.assertIn(command, listed)
        for command in COMMANDS:
            done = run_cli(command, "--help")
            self.assertEqual(done.returncode, 0, command)
            self.assertIn("--", done.stdout, command)

    def test_bad_usage_exits_with_2_and_one_line(self):
        self.one_line(run_cli("dance"), 2, "dance")
        self.one_line(run_cli("serve", "--model", MODEL, "--no-such-flag"), 2, "no-such-flag")
        self.one_line(run_cli("serve"), 2, "--model")
        for flag, value in (("--block-size", 33), ("--threads", -3), ("--cpu-isa", "mmx"), ("--max-num-seqs", 0),
                            ("--max-num-batched-tokens", 5), ("--ctx", "banana"), ("--kv-cache-bytes", "-1"),
                            ("--kv-dtype", "int4"), ("--listen", "1.2.3"), ("--metrics", "nowhere"),
                            ("--matmul", "fast"), ("--log-level", "loud"), ("--drain-seconds", "nan"), ("--itl-target", "-1")):
            with self.subTest(flag):
                self.one_line(run_cli("serve", "--model", MODEL, flag, value), 2, "millrace serve")
        for command in (["serve"], ["bench"], ["generate", "--prompt", "x"]):
            self.one_line(run_cli(*command, "--model", MODEL, "--device", "cpu", "--matmul", "cublas"), 2,
                          "--matmul cublas: only a GPU has it")
        self.one_line(run_cli("bench", "--model", MODEL, "--prefill", "x"), 2, "--prefill")
        self.one_line(run_cli("bench", "--model", MODEL, "--prefill", 0, "--decode", 0), 2, "nothing to measure")
        # It has no --ctx, so it says what takes the context.
        self.one_line(run_cli("bench", "--device", "cpu", "--model", MODEL, "--prefill", 60000), 1,
                      "trained for 2048; --depth and the longest of --prefill")
        self.one_line(run_cli("loadgen", "--target", "x:1", "--output-tokens", "many"), 2, "many")

    def test_bench_measures_a_batch_that_has_a_prefix_in_common(self):
        done = run_cli("bench", "--model", MODEL, "--prefill", 0, "--decode", 4, "--batch", "2,4", "--depth", 300, "--repeat", 1,
                       "--shared-prefix", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([(row["batch"], row["depth"], row["shared_prefix"]) for row in json.loads(done.stdout)],
                         [(2, 300, True), (4, 300, True)])
        self.one_line(run_cli("bench", "--model", MODEL, "--shared-prefix"), 2, "--depth of at least 32")

    def test_flags_of_later_versions_say_so(self):
        self.one_line(run_cli("serve", "--model", MODEL, "--http", "127.0.0.1:0"), 2, "not built yet")

    def test_a_file_that_is_no_model_is_refused_by_every_command(self):
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            file.write(b"not a model at all, but long enough to look at")
            file.flush()
            for arguments in (["inspect", file.name], ["generate", "--model", file.name, "--prompt", "a"],
                              ["serve", "--model", file.name], ["bench", "--model", file.name],
                              ["capacity", "--model", file.name],
                              ["logits", "--model", file.name, "--tokens", "1", "--out", file.name + ".out"]):
                with self.subTest(arguments[0]):
                    self.one_line(run_cli(*arguments), 1, "GGUF")

    def test_a_file_name_that_is_not_utf8_leaves_the_log_json(self):
        with tempfile.TemporaryDirectory() as folder:
            cache = os.path.join(os.fsencode(folder), b"cach\xe9")
            with Server("--log-format", "json", "--log-level", "debug", "--weight-cache", cache) as server:
                server.terminate()
                self.assertEqual(server.wait(), 0)
                lines = pathlib.Path(server.log_file.name).read_bytes().splitlines()
            self.assertTrue(any(b"/cach" in line for line in lines), lines)
            for line in lines:
                json.loads(line.decode())

    def test_numbers_of_the_log_are_numbers_in_json(self):
        with tempfile.TemporaryDirectory() as cache, Server("--log-format", "json", "--weight-cache", cache) as server:
            server.process.send_signal(signal.SIGUSR1)
            for _ in range(1000):
                if "prefix cache flushed" in server.log():
                    break
                self.assertEqual(server.http("/livez")[0], 200)
            generate(server, "Once", max_new_tokens=2)
            server.terminate()
            self.assertEqual(server.wait(), 0)
            lines = [json.loads(line) for line in server.log().splitlines()]
        by_message = {line["message"]: line for line in lines}
        for message, field in (("model loaded", "seconds"), ("weights kept in the cache for the next start", "bytes"),
                               ("prefix cache flushed", "blocks"), ("request", "generated_tokens")):
            self.assertIsInstance(by_message[message][field], (int, float), message)
        for line in lines:
            for name, value in line.items():
                self.assertFalse(isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d*)?(e[-+]?\d+)?", value), (name, line))

    def test_what_a_server_or_a_file_says_is_no_command_to_the_terminal(self):
        class Hostile(pb_grpc.GenerationServiceServicer):
            def Generate(self, message, context):
                context.abort(grpc.StatusCode.INTERNAL, "\x1b]0;owned\x07\x9b2J\nsecond line")

        hostile = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        pb_grpc.add_GenerationServiceServicer_to_server(Hostile(), hostile)
        port = hostile.add_insecure_port("127.0.0.1:0")
        hostile.start()
        self.addCleanup(hostile.stop, None)
        done = run_cli("client", "--target", f"127.0.0.1:{port}", "--prompt", "a")
        self.one_line(done, 1, "INTERNAL: \\u001b]0;owned\\u0007\\u009b2J second line")
        self.assertNotRegex(done.stderr.rstrip("\n"), "[\x00-\x1f\x7f-\x9f]")
        with tempfile.TemporaryDirectory() as folder:
            self.one_line(run_cli("inspect", f"{folder}/\x1b[2J.gguf"), 1, "\\u001b[2J.gguf: No such file")

    def test_generate_prints_text(self):
        """FALSIFY-QW3-MOE-FORWARD-003"""
        done = run_cli("generate", "--model", MODEL, "--prompt", "Hi", "--max-new-tokens", 8)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stdout.strip())
        self.assertIn("tok/s", done.stderr)

    def test_flags_may_stand_in_the_environment_or_in_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder) / "serve.toml"
            config.write_text("max-queue = -1\n")
            self.one_line(run_cli("serve", "--model", MODEL, "--config", config), 2, "--max-queue")
            (pathlib.Path(folder) / "wrong.toml").write_text("max-queues = 5\n")
            self.one_line(run_cli("serve", "--model", MODEL, "--config", pathlib.Path(folder) / "wrong.toml"), 2, "'max-queues'")
            environment = dict(os.environ, MILLRACE_BLOCK_SIZE="33")
            self.one_line(run_cli("serve", "--model", MODEL, env=environment), 2, "--block-size 33")
            with Server("--config", config, "--max-queue", 5) as server:  # the command line wins
                self.assertTrue(server.target)

    def test_generate_gives_the_documented_json(self):
        done = generate_in_process([1, 2, 3], 5)
        self.assertEqual(set(done), {"prompt_token_ids", "token_ids", "text", "finish_reason", "prefill_seconds",
                                     "decode_seconds"})
        self.assertEqual(done["prompt_token_ids"], [1, 2, 3])

    def test_logits_writes_float32_rows(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "logits.f32"
            done = run_cli("logits", "--model", MODEL, "--tokens", "1,2,3", "--out", out)
            self.assertEqual(done.returncode, 0, done.stderr)
            data = out.read_bytes()
        self.assertEqual(len(data), 3 * 4096 * 4)
        self.assertTrue(all(abs(x) < 1e4 for x in struct.unpack(f"<{3 * 4096}f", data)))

    def test_every_kernel_level_of_this_machine_gives_the_same_bits(self):
        rows = {}
        with tempfile.TemporaryDirectory() as folder:
            for level in ("scalar", "avx2", "avx2-vnni", "avx512"):
                out = pathlib.Path(folder) / level
                done = run_cli("logits", "--model", MODEL, "--tokens", "1,872,300,40", "--out", out, "--cpu-isa", level)
                if done.returncode != 0:
                    self.assertIn(level, done.stderr)  # a level this machine lacks is refused by name
                    continue
                rows[level] = out.read_bytes()
        self.assertGreater(len(rows), 1)
        self.assertEqual(len(set(rows.values())), 1, list(rows))

    def test_a_weight_cache_changes_no_bit_and_is_made_anew_for_a_changed_model(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            model = folder / "model.gguf"
            model.write_bytes(MODEL.read_bytes())

            def start(*flags):
                out = folder / "logits"
                done = run_cli("logits", "--model", model, "--tokens", "1,872,300,40", "--out", out, *flags)
                self.assertEqual(done.returncode, 0, done.stderr)
                return hashlib.sha256(out.read_bytes()).hexdigest(), done.stderr
            cache = ("--weight-cache", folder / "cache" / "weights")
            without, _ = start()
            for said in ("kept in the cache", "mapped from the cache"):
                logits, stderr = start(*cache)
                self.assertIn(said, stderr)
                self.assertEqual(logits, without)
            content = MODEL.read_bytes()
            half = len(content) // 2  # of weights; the header stays, and no lowest bit makes a NaN
            model.write_bytes(content[:half] + bytes(byte ^ 1 for byte in content[half:]))
            logits, stderr = start(*cache)
            self.assertIn("kept in the cache", stderr)
            self.assertEqual(logits, start()[0])
            self.assertNotEqual(logits, without)
            self.one_line(run_cli("logits", "--model", model, "--tokens", "1", "--out", folder / "x", "--weight-cache", model), 1,
                          "want a folder")

    def test_a_split_model_is_one_model(self):
        model = next(m for m in tiny_models.MODELS if m.name == "qwen3moe-f32")
        weights = tiny_models.make_weights(model, numpy.random.default_rng(1))
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            tiny_models.write_gguf(folder / "whole.gguf", model, weights)
            tiny_models.write_gguf(folder / "parts.gguf", model, weights, split_max_tensors=9)
            parts = sorted(folder.glob("parts-*-of-*.gguf"))
            self.assertEqual(len(parts), (len(weights) + 8) // 9)
            rows = []
            for path in (folder / "whole.gguf", parts[0]):
                out = folder / "logits"
                done = run_cli("logits", "--model", path, "--tokens", "5,9,200,40", "--out", out)
                self.assertEqual(done.returncode, 0, done.stderr)
                rows.append(out.read_bytes())
            self.assertEqual(rows[0], rows[1])
            done = run_cli("inspect", parts[0])
            self.assertEqual(done.returncode, 0, done.stderr)
            done = run_cli("inspect", parts[1])
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"open {parts[0]}", done.stderr)
            parts[2].unlink()
            done = run_cli("inspect", parts[0])
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"{parts[2]}: No such file", done.stderr)

    def test_inspect_tells_what_a_file_is(self):
        done = run_cli("inspect", MODEL, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("qwen3moe", json.dumps(json.loads(done.stdout)))
        self.assertEqual(json.loads(done.stdout)["kv_bytes_per_token"], {"f32": 6144, "f16": 3072, "q8_0": 1632, "fp8": 1536})
        self.assertIn("1536 in fp8", run_cli("inspect", MODEL).stdout)

    def test_inspect_says_whether_the_machine_can_serve_it_and_how_fast(self):
        found = json.loads(run_cli("inspect", MODEL, "--json").stdout)
        self.assertTrue(found["memory"]["fits"])
        self.assertEqual(found["memory"]["context_length"], found["context_length"])
        self.assertEqual(found["chat_template"], "runs")
        # All but the experts that a token does not use and the rows of the embedding but one.
        decode = found["decode"]
        self.assertLess(decode["weight_bytes_per_token"], found["file_bytes"] / 2)
        self.assertGreater(decode["weight_bytes_per_token"], found["file_bytes"] / 4)
        self.assertGreater(decode["read_gb_per_second"], 0.1)
        self.assertNotIn("verify", found)

    def test_inspect_says_what_weights_take_on_a_gpu_where_none_is(self):
        model = next(m for m in tiny_models.MODELS if m.name == "qwen3moe-q2_k")
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "q2_k.gguf"
            tiny_models.write_gguf(path, model, tiny_models.make_weights(model, numpy.random.default_rng(1)))
            found = json.loads(run_cli("inspect", path, "--json", "--tensors").stdout)
            shown = run_cli("inspect", path).stdout
        # Bytes of 256 values of a row: int8, with a scale for each 16 (Q2_K: and a minimum), and d (Q2_K: and dmin).
        units = {"Q2_K": 256 + 16 + 2 * 2, "Q3_K": 256 + 16 + 2}
        for tensor in found["tensors"]:
            *experts, rows, k = (1, *tensor["shape"])
            padded = math.prod(experts) * math.ceil(rows / 16) * 16 * math.ceil(k / 256)
            self.assertEqual(tensor["cuda_bytes"], padded * units[tensor["type"]] if tensor["type"] in units else tensor["bytes"],
                             tensor)
        total = sum(tensor["cuda_bytes"] for tensor in found["tensors"])
        self.assertEqual(found["cuda_weight_bytes"], total)
        self.assertGreater(total, 2 * found["weight_bytes"])
        self.assertIn(f"weights take {total / 1e6:.2f} MB, {found['weight_bytes'] / 1e6:.2f} MB in the file", shown)
        # Types that a GPU holds as the file does are not worth a line.
        self.assertNotIn("in the file", run_cli("inspect", MODEL).stdout)

    def test_inspect_verifies_every_byte(self):
        done = run_cli("inspect", MODEL, "--verify", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout)["verify"]
        self.assertTrue(found["ok"])
        content = MODEL.read_bytes()
        self.assertEqual(found["files"][0]["sha256"], hashlib.sha256(content).hexdigest())
        with tempfile.TemporaryDirectory() as folder:
            broken = pathlib.Path(folder) / "broken.gguf"
            broken.write_bytes(content[:-64 * 1024] + b"\xff" * 64 * 1024)
            done = run_cli("inspect", broken, "--verify")
            self.assertEqual(done.returncode, 1)
            self.assertIn("is no finite number", done.stderr)

    def test_tokenize_goes_both_ways(self):
        ids = run_cli("tokenize", "--model", MODEL, input='"Once upon a time"\n')
        self.assertEqual(ids.returncode, 0, ids.stderr)
        text = run_cli("tokenize", "--model", MODEL, "--decode", input=ids.stdout)
        self.assertEqual(json.loads(text.stdout), "Once upon a time")

    def test_client_and_loadgen_reach_a_server(self):
        with Server() as server, tempfile.TemporaryDirectory() as folder:
            done = run_cli("client", "--target", server.target, "--chat", "Hello!", "--max-new-tokens", 8)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(done.stdout.strip())
            report = pathlib.Path(folder) / "load.json"
            done = run_cli("loadgen", "--target", server.target, "--concurrency", 4, "--requests", 12, "--prompt-tokens",
                           "uniform:4:40", "--output-tokens", 8, "--json", report)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("ttft", report.read_text().lower())
        done = run_cli("client", "--target", "127.0.0.1:1", "--prompt", "a")
        self.one_line(done, 1, "UNAVAILABLE")


if __name__ == "__main__":
    main()
