"""Gates FALSIFY-QWEN3_MOE_SERVE_DISPATCH_V1_001 to _003, against the real server process."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

from harness import MODEL, ROOT, Server, chat, generate, main

GUARD = "matmul weight has EMPTY data buffer"
NOT_WIRED = "MoE inference not supported"


def forward_tokens(server, path):
    return server.metrics().get(f'millrace_forward_tokens_total{{path="{path}"}}', 0)


class Dispatch(unittest.TestCase):
    def test_001_a_chat_request_on_a_moe_model_answers(self):
        """FALSIFY-QWEN3_MOE_SERVE_DISPATCH_V1_001"""
        with Server() as server:
            done = generate(server, chat("Hi"), max_new_tokens=4)
            self.assertTrue(done.text.strip())
            for words in (GUARD, NOT_WIRED):
                self.assertNotIn(words, server.log())
            self.assertTrue(generate(server, chat("Hi"), max_new_tokens=4).text)

    def test_002_a_moe_model_never_takes_the_dense_path(self):
        """FALSIFY-QWEN3_MOE_SERVE_DISPATCH_V1_002"""
        with Server() as server:
            generate(server, chat("Hi"), max_new_tokens=4)
            generate(server, "Hi", max_new_tokens=4)
            generate(server, [5, 6, 7], max_new_tokens=4)
            self.assertGreater(forward_tokens(server, "moe"), 0)
            self.assertEqual(forward_tokens(server, "dense"), 0)

    def test_002_a_dense_model_counts_the_other_way_round(self):
        """FALSIFY-QWEN3_MOE_SERVE_DISPATCH_V1_002"""
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder) / "dense.gguf"
            subprocess.run([sys.executable, ROOT / "tools/synth_gguf.py", model, "--preset", "dense", "--layers", "1"],
                           check=True, capture_output=True)
            with Server(model=model) as server:
                generate(server, [5, 6, 7], max_new_tokens=4)
                self.assertEqual(forward_tokens(server, "moe"), 0)
                self.assertGreater(forward_tokens(server, "dense"), 0)

    def test_003_the_guard_does_not_fire_on_the_chat_path(self):
        """FALSIFY-QWEN3_MOE_SERVE_DISPATCH_V1_003; that it can fire is shown by cpu_backend_test."""
        with Server("--log-level", "debug") as server:
            self.assertTrue(generate(server, chat("Hi"), max_new_tokens=4).text)
            server.terminate()
            server.wait()
            self.assertNotIn(GUARD, server.log())


if __name__ == "__main__":
    main()
