"""A server on the CUDA backend, which runs on an emulated GPU (tests/cuda/emulation): the program itself, with the module beside it."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import grpc

import harness
from harness import MODEL, Server, generate, pb, request

EMULATED = pathlib.Path(os.environ.get("MILLRACE_CUDA_MODULE", harness.BINARY.parent / "emulated/libmillrace_cuda.so"))
EXIT_SECONDS = 5  # from the detection of a fault, as docs/reliability.md promises


def tokens_of(server, prompt, **sampling):
    temperature = sampling.pop("temperature", 0.0)
    return generate(server, prompt, 12, temperature, sampling=pb.SamplingParams(**sampling)).token_ids


class CudaTest(unittest.TestCase):
    PLANNED_MEMORY = 512 << 20  # of a GPU: less than a cache for all sequences would take

    @classmethod
    def setUpClass(cls):
        # The module is looked for beside the program, so both are put into a folder of their own.
        cls.folder = tempfile.TemporaryDirectory()
        cls.binary = pathlib.Path(cls.folder.name) / "millrace"
        shutil.copy(harness.BINARY, cls.binary)
        shutil.copy(EMULATED, pathlib.Path(cls.folder.name) / EMULATED.name)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def server(self, *flags, fault="", device="cuda:0", memory="", cublas_rows=""):
        env = os.environ | {"MILLRACE_EMULATION_FAULT": fault, "MILLRACE_EMULATION_MEMORY": memory,
                            "MILLRACE_EMULATION_CUBLAS_ROWS": cublas_rows}
        return Server("--device", device, "--max-num-seqs", 4, "--ctx", 256, "--max-num-batched-tokens", 64, *flags, binary=self.binary, env=env)

    def refusal(self, *flags, fault="", memory=""):
        env = os.environ | {"MILLRACE_EMULATION_FAULT": fault, "MILLRACE_EMULATION_MEMORY": memory}
        done = subprocess.run([self.binary, "serve", "--model", MODEL, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", *flags],
                              env=env, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        return done.stderr

    def test_a_server_on_a_gpu_answers_as_one_on_the_cpu(self):
        prompts = [[5, 6, 7, 8], list(range(10, 50)), [3]]
        sampled = {"temperature": 0.9, "top_k": 40, "seed": 7}
        with Server("--device", "cpu") as cpu:
            expected = [tokens_of(cpu, prompt) for prompt in prompts] + [tokens_of(cpu, prompts[0], **sampled)]
        with self.server() as cuda:
            self.assertIn("cuda:0", cuda.stub.GetModelInfo(pb.GetModelInfoRequest()).device)
            self.assertEqual([tokens_of(cuda, prompt) for prompt in prompts] + [tokens_of(cuda, prompts[0], **sampled)], expected)

    def test_a_device_that_is_lost_ends_streams_health_and_the_process(self):
        with self.server(fault="launch:6") as server:
            self.fails(server)

    def test_a_kernel_that_hangs_ends_streams_health_and_the_process(self):
        with self.server(fault="hang:900") as server:
            self.fails(server)

    def test_products_by_cublas_answer_alike_and_the_server_says_that_answers_depend_on_their_company(self):
        text = ("Once upon a time there was a little girl who lived in a house with a big garden. "
                "One day she went out to play with her ball and her small dog and")
        with Server("--device", "cpu") as cpu:
            prompt = list(cpu.stub.Tokenize(pb.TokenizeRequest(text=text)).token_ids)
            self.assertTrue(cpu.stub.GetModelInfo(pb.GetModelInfoRequest()).batch_invariant)
            expected = [tokens_of(cpu, prompt), tokens_of(cpu, prompt[:5])]
        self.assertGreaterEqual(len(prompt), 24)
        with self.server("--matmul", "cublas", cublas_rows="24") as cuda:
            info = cuda.stub.GetModelInfo(pb.GetModelInfoRequest())
            self.assertFalse(info.batch_invariant)
            self.assertIn("cuBLAS 13.1", info.device)
            large, small = tokens_of(cuda, prompt), tokens_of(cuda, prompt[:5])
        # The first tokens of a text that the model knows how to go on with; small steps keep the CPU's bits.
        self.assertEqual(large[:4], expected[0][:4])
        self.assertEqual(small, expected[1])

    def test_a_product_of_cublas_that_fails_ends_streams_health_and_the_process(self):
        with self.server("--matmul", "cublas", fault="cublas:2", cublas_rows="8") as server:
            self.assertIn("CUBLAS_STATUS_EXECUTION_FAILED", self.fails(server, prompt=range(1, 17)))

    def test_cublas_that_is_not_there_or_has_no_gpu_is_one_line(self):
        self.assertIn("cuBLAS of CUDA 13 does not load", self.refusal("--device", "cuda:0", "--matmul", "cublas", fault="nocublas"))
        # The CPU does not stand in for what was asked for.
        self.assertIn("no NVIDIA driver is installed", self.refusal("--device", "auto", "--matmul", "cublas", fault="nodevice"))

    def fails(self, server, prompt=(1, 2, 3)):
        with self.assertRaises(grpc.RpcError) as failure:
            for _ in server.stub.Generate(request(list(prompt), 100), timeout=harness.CALL_SECONDS):
                pass
        began = time.monotonic()
        self.assertIn(failure.exception.code(), (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE))
        self.assertEqual(server.process.wait(timeout=EXIT_SECONDS), 1)
        self.assertLess(time.monotonic() - began, EXIT_SECONDS)
        # Who reads the log after the fact finds the reason there, too.
        self.assertIn("the device is lost error=", server.log())
        return failure.exception.details()

    def test_auto_serves_on_the_cpu_where_no_gpu_is_and_says_why(self):
        with self.server(device="auto", fault="nodevice") as server:
            self.assertIn("cpu", server.stub.GetModelInfo(pb.GetModelInfoRequest()).device)
            self.assertIn("no NVIDIA driver", server.log())

    def test_a_gpu_that_was_asked_for_and_is_not_there_is_one_line(self):
        self.assertIn("no NVIDIA driver is installed", self.refusal("--device", "cuda:0", fault="nodevice"))
        self.assertIn("only cuda:0", self.refusal("--device", "cuda:3"))

    def test_a_model_that_does_not_fit_the_gpu_is_refused_with_the_numbers(self):
        self.assertIn("weights take", self.refusal("--device", "cuda:0", memory=str(1 << 24)))

    def test_inspect_plans_a_gpus_memory_as_the_server_does(self):
        env = os.environ | {"MILLRACE_EMULATION_MEMORY": str(self.PLANNED_MEMORY)}
        with tempfile.TemporaryDirectory() as folder:
            # Of a type that takes three times as much on a GPU as in the file.
            model = pathlib.Path(folder) / "q2_k.gguf"
            subprocess.run([sys.executable, harness.ROOT / "tools/synth_gguf.py", model, "--preset", "tiny", "--layers", "1", "--quant", "q2_k"],
                           check=True, capture_output=True)
            done = subprocess.run([self.binary, "inspect", "--json", model], env=env, capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            planned = json.loads(done.stdout)["memory"]["plan"]
            with Server(model=model, binary=self.binary, env=env) as server:
                self.assertIn(planned, server.log())
            # The cache takes what is left and not all that it could use, so the size of the weights shows in the plan.
            context, positions = map(int, re.match(r"context (\d+) .* for (\d+) positions", planned).groups())
            self.assertLess(positions, 64 * context)


if __name__ == "__main__":
    unittest.main()
