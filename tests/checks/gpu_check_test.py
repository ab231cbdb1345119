#!/usr/bin/env python3
"""tools/gpu_check on the emulated GPU, with the programs that a bundle has; and what it does without a GPU."""
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MILLRACE_BUILD", ROOT / "build/release"))
SELFTEST = "millrace-cuda-selftest"
# A model and work that the emulated GPU does in a second or two.
SMALL = ["--preset", "tiny", "--layers", "1", "--vocab-size", "300", "--prefill", "3", "--batch", "1,2", "--decode", "2",
         "--depth", "4", "--repeat", "1", "--no-probe", "--selftest-filter", "CudaCombine.*:CudaInt8Peak.*"]

CHECK = ROOT / "tools/gpu_check"


def load_gpu_check():
    loader = importlib.machinery.SourceFileLoader("gpu_check", str(CHECK))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_check", loader))
    sys.modules["gpu_check"] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


gpu_check = load_gpu_check()


class GpuCheck(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.bundle = self.folder / "bundle"
        self.bundle.mkdir()
        # Copies: the module is looked for beside the program itself.
        for source in (BUILD / "millrace-bench", BUILD / "emulated/libmillrace_cuda.so", BUILD / "emulated" / SELFTEST):
            shutil.copy(source, self.bundle)

    def check(self, *flags, fault=""):
        done = subprocess.run([sys.executable, CHECK, "--bundle", self.bundle, "--work", self.folder / "work", "--out",
                               self.folder / "report.json", *SMALL, *flags], capture_output=True, text=True,
                              env=os.environ | {"MILLRACE_EMULATION_FAULT": fault})
        report = self.folder / "report.json"
        return done, json.loads(report.read_text()) if report.exists() else None

    def test_on_the_emulated_gpu_every_step_passes_and_one_report_has_what_they_found(self):
        done, report = self.check()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual({name: entry["result"] for name, entry in report["steps"].items()},
                         {"device": "passed", "selftest": "passed", "model": "passed", "bench": "passed",
                          "nographs": "passed", "nofusion": "passed", "cublas": "passed", "depth": "passed", "peer": "skipped"})
        self.assertIn("no peer", report["steps"]["peer"]["why"])
        self.assertIn("Emulated GPU", report["results"]["device"])
        self.assertEqual(report["results"]["selftest"]["cases"], 6)
        self.assertEqual(report["results"]["selftest"]["failed"], 0)
        rows = report["results"]["bench"]["rows"]
        self.assertEqual([(row["kind"], row["batch"], row["tokens"]) for row in rows],
                         [("prefill", 1, 3), ("decode", 1, 2), ("decode", 2, 2)])
        for row in rows:
            self.assertEqual((row["device"], row["device_name"], row["graphs"]), ("cuda:0", "Emulated GPU", True))
            self.assertGreater(row["free_bytes"], 0)
            self.assertGreater(row["gb_per_second"] if row["kind"] == "decode" else row["gops"], 0)
        self.assertFalse(report["results"]["nographs"]["rows"][0]["graphs"])
        self.assertEqual([(row["batch"], row["fused"]) for row in report["results"]["nofusion"]["rows"]],
                         [(1, False), (2, False)])
        self.assertEqual({row["fused"] for row in rows}, {True})
        self.assertEqual([(row["kind"], row["batch_invariant"]) for row in report["results"]["cublas"]["rows"]],
                         [("prefill", False)])
        self.assertEqual({row["batch_invariant"] for row in rows}, {True})
        self.assertEqual({row["depth"] for row in report["results"]["depth"]["rows"]}, {4})

    def test_steps_may_be_spread_over_calls_that_share_a_report(self):
        done, report = self.check("--steps", "bench")
        self.assertEqual(report["steps"]["bench"]["result"], "skipped")
        self.assertIn("device and model did not pass", done.stdout)
        self.assertEqual(self.check("--steps", "device,model")[0].returncode, 0)
        done, report = self.check("--steps", "nographs")
        self.assertEqual(report["steps"]["nographs"]["result"], "passed", done.stdout)
        self.assertEqual(report["steps"]["model"]["result"], "passed")

    def test_a_step_beyond_its_limit_is_ended_and_the_next_one_runs(self):
        begin = time.monotonic()
        done, report = self.check("--steps", "device,selftest,model", "--selftest-filter",
                                  "CudaBackend.Gives*", "--limit", "selftest=1")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(report["steps"]["selftest"]["result"], "out of time")
        self.assertEqual(report["steps"]["model"]["result"], "passed")
        self.assertLess(time.monotonic() - begin, 30)

    def test_a_step_that_fails_says_why_and_the_check_ends_with_1(self):
        done, report = self.check("--steps", "device,model,bench", "--device", "cuda:7")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(report["steps"]["bench"]["result"], "failed")
        self.assertIn("there is no CUDA device 7", done.stdout)

    def test_a_machine_without_cublas_skips_its_step_and_says_why(self):
        self.assertEqual(self.check("--steps", "device,model")[0].returncode, 0)
        done, report = self.check("--steps", "cublas", fault="nocublas")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(report["steps"]["cublas"]["result"], "skipped")
        self.assertIn("cuBLAS of CUDA 13 does not load", report["steps"]["cublas"]["why"])

    def test_a_bench_that_fell_back_to_the_cpu_is_a_failure(self):
        done, report = self.check("--steps", "device,model,bench", "--device", "cpu")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("it ran on cpu", report["steps"]["bench"]["why"])

    @unittest.skipUnless((BUILD / SELFTEST).exists() and not pathlib.Path("/dev/nvidiactl").exists(),
                         "wants a build with CUDA, and no GPU")
    def test_without_a_device_one_line_says_so_and_no_model_is_made(self):
        shutil.copy(BUILD / SELFTEST, self.bundle)
        done, report = self.check()
        self.assertEqual(done.returncode, 77)
        self.assertIn("nothing was measured: millrace-cuda-selftest: no test was run: no ", done.stdout.splitlines()[-1])
        self.assertEqual(list(report["steps"]), ["device"])
        self.assertFalse(list((self.folder / "work").glob("*.gguf")))

    def test_without_a_bundle_it_says_how_to_pack_one(self):
        (self.bundle / "millrace-bench").unlink()
        done, report = self.check()
        self.assertEqual((done.returncode, report), (1, None))
        self.assertIn("tools/gpu_bundle", done.stderr)

    def test_it_writes_over_no_file_that_is_not_its_report(self):
        (self.folder / "report.json").write_text('{"mine": 1}')
        done, report = self.check()
        self.assertEqual((done.returncode, report), (1, {"mine": 1}))
        self.assertIn("give another --out", done.stderr)

    def test_its_limits_fit_into_what_a_machine_is_lent_for(self):
        done = subprocess.run([sys.executable, CHECK, "--dry-run"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertLessEqual(sum(step.limit for step in gpu_check.STEPS), 15 * 60)
        self.assertLessEqual(max(step.limit for step in gpu_check.STEPS), 10 * 60)
        done = subprocess.run([sys.executable, CHECK, "--dry-run", "--limit", "bench=900"], capture_output=True)
        self.assertEqual(done.returncode, 1)


class WhatTheWorkCosts(unittest.TestCase):
    """Against the figures of Qwen3-30B-A3B at Q4_K_M, counted from its shapes."""

    class Arguments:
        preset, layers, vocab_size = "30b-a3b", None, 151_936

    def test_a_decode_step_reads_the_bytes_of_the_full_model(self):
        model = gpu_check.Model(self.Arguments)
        self.assertAlmostEqual(model.step_bytes(1, 0) / 1e9, 1.92, delta=0.01)
        self.assertAlmostEqual(model.step_bytes(8, 0) / 1e9, 0.8225 + 0.13713 * 51.6, delta=0.05)
        self.assertAlmostEqual(model.step_bytes(256, 0) / 1e9, 0.8225 + 0.13713 * 128, delta=0.05)
        self.assertEqual(model.kv_bytes(), 98_304)
        self.assertAlmostEqual(model.prefill_operations() / 1e9, 5.46, delta=0.05)

    def test_rates_are_held_against_the_probe_of_the_same_run(self):
        model = gpu_check.Model(self.Arguments)
        rows = [{"kind": "decode", "batch": 8, "tokens": 64, "depth": 0, "tokens_per_second": {"median": 800.0}},
                {"kind": "prefill", "batch": 1, "tokens": 512, "depth": 0, "tokens_per_second": {"median": 10_000.0}}]
        gpu_check.judge(rows, {"copy_gb_per_second": 4000.0, "int8_gops": 1e6}, model)
        self.assertAlmostEqual(rows[0]["gb_per_second"], model.step_bytes(8, 33) * 100 / 1e9)
        self.assertAlmostEqual(rows[0]["of_copy_rate"], rows[0]["gb_per_second"] / 4000)
        self.assertAlmostEqual(rows[1]["of_int8_rate"], model.prefill_operations() * 1e4 / 1e9 / 1e6)

    def test_the_peers_rows_are_read_and_compared_where_the_work_is_the_same(self):
        class Arguments:
            decode = 64
        single = json.dumps([{"n_prompt": 512, "n_gen": 0, "n_depth": 0, "samples_ts": [90.0, 100.0, 110.0]},
                             {"n_prompt": 0, "n_gen": 64, "n_depth": 4096, "samples_ts": [10.0]}])
        table = ("|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |\n"
                 "|    64 |     64 |    8 |   1024 |    1.000 |   512.00 |    2.000 |   256.00 |    3.000 |   341.33 |\n")
        peer = {"rows": gpu_check.peer_rows(Arguments, single, table)}

        def row(kind, batch, tokens, depth, rate):
            return {"kind": kind, "batch": batch, "tokens": tokens, "depth": depth, "tokens_per_second": {"median": rate}}
        report = {"results": {"peer": peer,
                              "bench": {"rows": [row("prefill", 1, 512, 0, 250.0), row("decode", 8, 64, 0, 512.0),
                                                 row("decode", 1, 64, 0, 50.0)]},
                              "depth": {"rows": [row("decode", 1, 64, 4096, 15.0), row("decode", 8, 64, 4096, 1.0)]}}}
        gpu_check.compare(report)
        ratios = [r.get("ratio_to_llama_cpp") for step in ("bench", "depth") for r in report["results"][step]["rows"]]
        self.assertEqual(ratios, [2.5, 2.0, None, 1.5, None])


if __name__ == "__main__":
    unittest.main()
