"""The manifests of k8s/ and the images of deploy/docker: rendered and validated by the real tools, and held against the
real binary, which is started with the very configuration that the cluster would give it."""
import copy
import functools
import hashlib
import http.server
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

import jsonschema
import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "e2e"), str(HERE.parents[1] / "tools")]
import manifests  # noqa: E402
import synth_gguf  # noqa: E402
from harness import BINARY, LONG, MODEL, ROOT, Server, generate, health_pb, pb, request, run_cli  # noqa: E402

PROGRAMS = pathlib.Path(sys.executable).parent
KUBERNETES = "1.37"  # the newest of kubernetes-validate's schemas, and kubectl's version
OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
MODULE = BINARY.parent / "libmillrace_cuda.so"
DOCKERFILES = sorted((ROOT / "deploy/docker").glob("Dockerfile.*"))
README_BYTES = 18_556_689_568  # of the model that the manifests fetch, as README.md has it

# What checkov finds and we keep, each with its reason. One that is not found any more fails the test.
CHECKOV_SKIPS = {
    # The digest of an image is known to whoever builds and keeps it; kustomize's `images` is where they put it.
    ("CKV_K8S_43", "Deployment.millrace.millrace"),
    # The picker's image is pinned by its release's tag; no digest could be looked up where this was written.
    ("CKV_K8S_43", "Deployment.millrace.millrace-picker"),
    # The endpoint picker watches pods and pools: it needs its token. Its role allows no more (picker-access.yaml).
    ("CKV_K8S_38", "Deployment.millrace.millrace-picker"),
}


def load_tool(name):
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "tools" / name))
    sys.dont_write_bytecode = True
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def run(*command, **keywords):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **keywords)


def kustomize(folder):
    done = run(PROGRAMS / "kubectl", "kustomize", folder)
    if done.returncode:
        raise RuntimeError(f"{folder}: {done.stderr}")
    return done.stdout


@functools.cache
def rendered(overlay):
    return kustomize(ROOT / "k8s/overlays" / overlay)


@functools.cache
def parsed(overlay):
    return list(yaml.load_all(rendered(overlay), yaml.CSafeLoader))


def resources(overlay):
    """The resources of an overlay, the caller's to change."""
    return copy.deepcopy(parsed(overlay))


# --- what the binary says and does ----------------------------------------------------------------------------------

def parse(args, config_text):
    """What the binary says against these arguments; None when it only misses the model."""
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "millrace.conf"
        config.write_text(config_text)
        args = [config if before == "--config" else arg for before, arg in zip(["", *args], args)]
        done = run_cli(*args, "--model", f"{folder}/absent.gguf")
        missing = done.returncode == 1 and "absent.gguf: No such file" in done.stderr
        return None if missing else done.stderr.strip() or f"exit code {done.returncode}"


def model_numbers():
    """(weights, scratch, KV bytes a token) of the 30B model, by `millrace inspect` on a file of its shapes.

    The file has the whole header and no weights: its bytes are holes."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "shapes.gguf"
        shape, vocabulary = synth_gguf.PRESETS["30b-a3b"], synth_gguf.own_vocabulary(151_936)
        tensors = list(synth_gguf.tensor_plan(shape, shape["layers"], len(vocabulary[0]), "q4_k_m"))
        header = synth_gguf.make_header("shapes", shape, shape["layers"], "q4_k_m", vocabulary)
        for tensor in tensors:
            header.tensor(tensor.name, tensor.kind, tensor.shape, tensor.nbytes)
        head = header.pack()
        path.write_bytes(head)
        os.truncate(path, len(head) + header.offset)
        done = run_cli("inspect", "--json", path)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        # "weights 18.55 GB, scratch 0.20 GB" where it fits, "weights take 18.55 GB, ..." where it does not.
        weights, scratch = (float(re.search(rf"{word} (?:take )?([\d.]+) GB", facts["memory"]["plan"])[1]) * 1e9
                            for word in ("weights", "scratch"))
        return weights, scratch, facts["kv_bytes_per_token"]["f16"], facts["file_bytes"]


def health(server, names):
    stub = server.health
    return {name: stub.Check(health_pb.HealthCheckRequest(service=name)).status == health_pb.HealthCheckResponse.SERVING
            for name in names}


def grpcurl(server, *words):
    return run(PROGRAMS / "grpcurl", "-plaintext", *words[:-1], server.target, *words[-1].split())


class Running:
    """The real server with the configuration of overlays/cpu, of which a small machine and model change a little."""

    # The model is another, ports are free ones, and the rest would not fit what runs tests.
    OVERRIDES = ["--ctx", "2048", "--kv-cache-bytes", "64M", "--threads", "2"]

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        config = pathlib.Path(self.folder.name) / "millrace.conf"
        config.write_text(manifests.Manifests(resources("cpu")).config_text)
        self.server = Server("--config", config, *self.OVERRIDES)

    def facts(self):
        server = self.server
        text = run_cli("serve", "--help").stdout
        flags = dict(re.findall(r"^  (?:-h,)?--([a-z-]+)(.*\n(?:      .*\n)*)", text, flags=re.MULTILINE))
        generate(server)
        status, scrape = server.http("/metrics")
        assert status == 200
        series = [line for line in scrape.splitlines() if line and not line.startswith("#")]
        services = {name: {full.rpartition(".")[2] for full in grpcurl(server, "list " + name).stdout.split()}
                    for name in grpcurl(server, "list").stdout.split()}
        names = ["", "liveness", "millrace.v1.GenerationService"]
        weights, scratch, kv, self.file_bytes = model_numbers()
        return manifests.Facts(
            version=run_cli("--version").stdout.split()[-1], flags=set(flags),
            unbuilt={name for name, words in flags.items() if "not built yet" in words}, parse=parse,
            ready=health(server, names), draining={}, metrics={re.split(r"[{ ]", line)[0] for line in series},
            series=len(series), services=services, weight_bytes=weights, scratch_bytes=scratch, kv_bytes_per_token=kv,
            ask_scaler=self.ask_scaler)

    def ask_scaler(self, metadata):
        body = json.dumps({"name": "millrace", "namespace": "millrace", "scalerMetadata": metadata})
        key = body + str(self.server.target)
        if key not in (answers := self.__dict__.setdefault("answers", {})):
            done = grpcurl(self.server, "-d", body, "externalscaler.ExternalScaler/GetMetricSpec")
            answers[key] = None if done.returncode == 0 else done.stderr.strip()
        return answers[key]

    def drain(self, names):
        """{service: serving} after SIGTERM, while a stream still runs; then the server ends."""
        # Nobody reads on, and the messages are large: the server holds the stream until it is cancelled.
        endless = request(stopping=pb.StoppingCriteria(max_new_tokens=1900, ignore_eos=True),
                          output=pb.OutputOptions(logprobs=20))
        stream = self.server.stub.Generate(endless)
        next(stream)
        watch = self.server.health.Watch(health_pb.HealthCheckRequest(service=""))
        states = (answer.status for answer in watch)
        assert next(states) == health_pb.HealthCheckResponse.SERVING
        self.server.terminate()
        assert next(states) == health_pb.HealthCheckResponse.NOT_SERVING
        seen = health(self.server, names)
        stream.cancel()
        self.exit_code = self.server.wait()
        return seen

    def close(self):
        self.server.__exit__()
        self.folder.cleanup()


def setUpModule():
    global RUNNING, FACTS
    RUNNING = Running()
    unittest.addModuleCleanup(RUNNING.close)
    FACTS = RUNNING.facts()
    # Asked while the server lives; later checks find the answers.
    changed = [mutated(overlay, change) for _, overlay, _, change in MUTATIONS if overlay == "keda"]
    for found in [resources("keda"), *changed]:
        list(manifests.check_scaling(manifests.Manifests(found), FACTS))
    FACTS.draining = RUNNING.drain(FACTS.ready)


# --- mutations: mistakes that the checks must report -----------------------------------------------------------------

def config(m, old, new):
    data = m.named("ConfigMap", next(v for v in m.pod["volumes"] if v["name"] == "config")["configMap"]["name"])["data"]
    assert old in data["millrace.conf"], old
    data["millrace.conf"] = data["millrace.conf"].replace(old, new)


def only(m, kind):
    found, = m.of(kind)
    return found["spec"]


def picker_config(m, old, new):
    data = next(c["data"] for c in m.of("ConfigMap") if "picker-config.yaml" in c["data"])
    assert old in data["picker-config.yaml"], old
    data["picker-config.yaml"] = data["picker-config.yaml"].replace(old, new)


def labels(m):
    return m.deployment["spec"]["template"]["metadata"]["labels"]


MUTATIONS = [
    ("a GPU that the server may do without", "gpu", "a GPU asked for, --device auto",
     lambda m: m.server["args"].__setitem__(-1, "auto")),
    ("a GPU that is not asked for", "gpu", "no GPU asked for, --device cuda",
     lambda m: [m.server["resources"][part].pop("nvidia.com/gpu") for part in ("requests", "limits")]),
    ("the image without CUDA on a GPU", "gpu", "an image without CUDA",
     lambda m: m.server.update(image="millrace:0.1.0")),
    ("a sidecar before the server", "cpu", "not the server",
     lambda m: m.pod["containers"].insert(0, m.server | {"name": "proxy"})),
    ("an image of another version", "cpu", "tag is 0.9.0",
     lambda m: m.server.update(image="millrace:0.9.0")),
    ("an unknown flag in the file", "cpu", "no flag max-sequences",
     lambda m: config(m, "max-num-seqs = 64", "max-num-seqs = 64\nmax-sequences = 9")),
    ("an unknown flag in the arguments", "cpu", "no flag max-sequences",
     lambda m: m.server["args"].extend(["--max-sequences", "9"])),
    ("a flag that is not built", "cpu", "does not have tls-cert",
     lambda m: config(m, "log-format", "tls-cert = /tls/tls.crt\nlog-format")),
    ("a value that is none", "cpu", "refuses its arguments",
     lambda m: config(m, "kv-cache-bytes = 6G", "kv-cache-bytes = 6Gi")),
    ("a word of no enumeration", "cpu", "refuses its arguments",
     lambda m: config(m, "log-format = json", "log-format = xml")),
    ("a file that is not mounted", "cpu", "no ConfigMap is mounted",
     lambda m: m.server["args"].__setitem__(2, "/etc/millrace.conf")),
    ("a model of another name", "cpu", "fetch-model makes",
     lambda m: config(m, "Instruct-Q4_K_M", "Instruct-Q8_0")),
    ("another port of the server", "cpu", "the server listens on",
     lambda m: config(m, ":50051", ":50052")),
    ("a Service on a wrong port", "cpu", "Service millrace-headless: port grpc leads to",
     lambda m: m.named("Service", "millrace-headless")["spec"]["ports"][0].update(targetPort="metrics")),
    ("gRPC as HTTP/1.1", "cpu", "does not say that it is HTTP/2",
     lambda m: m.named("Service", "millrace")["spec"]["ports"][0].pop("appProtocol")),
    ("a closed metrics port", "cpu", "NetworkPolicy opens [50051]",
     lambda m: only(m, "NetworkPolicy")["ingress"].pop()),
    ("a probe of nobody", "cpu", "does not say is serving",
     lambda m: m.server["startupProbe"]["grpc"].update(service="millrace")),
    ("a probe of a wrong port", "cpu", "livenessProbe asks port 9400",
     lambda m: m.server["livenessProbe"]["grpc"].update(port=9400)),
    ("a readiness that outlives the drain", "cpu", "is serving in a drain",
     lambda m: m.server["readinessProbe"]["grpc"].update(service="liveness")),
    ("a liveness that ends with readiness", "cpu", "would kill a server in its drain",
     lambda m: m.server["livenessProbe"]["grpc"].update(service="")),
    ("an HTTP probe", "cpu", "no gRPC probe",
     lambda m: m.server.update(readinessProbe={"httpGet": {"path": "/readyz", "port": 9400}})),
    ("a grace as long as the drain", "cpu", "killed after 60 s",
     lambda m: m.pod.update(terminationGracePeriodSeconds=60)),
    ("a longer drain", "cpu", "killed after 75 s",
     lambda m: config(m, "drain-seconds = 45", "drain-seconds = 60")),
    ("a picker that goes first", "gateway", "goes before the streams",
     lambda m: m.named("Deployment", "millrace-picker")["spec"]["template"]["spec"].update(
         terminationGracePeriodSeconds=30)),
    ("too little memory", "cpu", "memory limit 25.77 GB",
     lambda m: m.server["resources"]["limits"].update(memory="24Gi")),
    ("a larger KV cache", "cpu", "memory limit",
     lambda m: config(m, "kv-cache-bytes = 6G", "kv-cache-bytes = 8G")),
    ("a context that does not fit", "cpu", "one whole context",
     lambda m: config(m, "ctx = 32768", "ctx = 262144")),
    ("more threads than CPUs", "cpu", "more worker threads",
     lambda m: config(m, "threads = 7", "threads = 9")),
    ("a request below the limit", "cpu", "not Guaranteed",
     lambda m: m.server["resources"]["requests"].update(cpu="1")),
    ("a volume too small", "cpu", "smaller than the model",
     lambda m: m.pod["volumes"][0]["emptyDir"].update(sizeLimit="10Gi")),
    ("service links", "cpu", "MILLRACE_ variables",
     lambda m: m.pod.pop("enableServiceLinks")),
    ("root", "cpu", "may run as root",
     lambda m: m.pod["securityContext"].update(runAsUser=0)),
    ("a writable root", "cpu", "server is not locked down",
     lambda m: m.server["securityContext"].update(readOnlyRootFilesystem=False)),
    ("another label of the pods", "cpu", "Service millrace selects",
     lambda m: labels(m).update({"app.kubernetes.io/component": "engine"})),
    ("a disruption budget for others", "cpu", "PodDisruptionBudget selects",
     lambda m: only(m, "PodDisruptionBudget")["selector"].update(matchLabels={"app": "millrace"})),
    ("a disruption budget for all", "cpu", "allows all of 2 replicas",
     lambda m: only(m, "PodDisruptionBudget").update(maxUnavailable=2)),
    ("a pool of others", "gateway", "InferencePool selects",
     lambda m: only(m, "InferencePool")["selector"].update(matchLabels={"app": "millrace"})),
    ("a picker that looks like a server", "gateway", "InferencePool also selects millrace-picker",
     lambda m: m.named("Deployment", "millrace-picker")["spec"]["template"]["metadata"].update(labels=labels(m))),
    ("no headless Service", "cpu", "want a ClusterIP and a headless Service",
     lambda m: m.all.remove(m.named("Service", "millrace-headless"))),
    ("a ConfigMap that is gone", "cpu", "there is no ConfigMap",
     lambda m: m.all.remove(next(c for c in m.of("ConfigMap") if "fetch-model.sh" in c["data"]))),
    ("another namespace", "cpu", "resources are in",
     lambda m: m.named("Service", "millrace")["metadata"].update(namespace="default")),
    ("two autoscalers", "keda", "2 autoscalers",
     lambda m: m.all.extend(r for r in resources("cpu") if r["kind"] == "HorizontalPodAutoscaler")),
    ("fixed replicas", "cpu", "undoes the autoscaler's work",
     lambda m: m.deployment["spec"].update(replicas=3)),
    ("a metric that is not", "cpu", "reads millrace_queue_length",
     lambda m: only(m, "HorizontalPodAutoscaler")["metrics"][0]["pods"]["metric"].update(name="millrace_queue_length")),
    ("a target out of reach", "cpu", "than a server has places",
     lambda m: only(m, "HorizontalPodAutoscaler")["metrics"][1]["pods"]["target"].update(averageValue="64")),
    ("KEDA at another address", "keda", "KEDA would ask millrace:50051",
     lambda m: only(m, "ScaledObject")["triggers"][0]["metadata"].update(scalerAddress="millrace:50051")),
    ("KEDA by a wrong query", "keda", "reads millrace_waiting",
     lambda m: only(m, "ScaledObject")["triggers"].append(
         {"type": "prometheus", "metadata": {"query": 'sum(millrace_waiting{job="x"})'}})),
    ("a scrape of a wrong port", "monitoring", "ServiceMonitor scrapes grpc",
     lambda m: only(m, "ServiceMonitor")["endpoints"][0].update(port="grpc")),
    ("a scrape of no Service", "monitoring", "ServiceMonitor selects []",
     lambda m: only(m, "ServiceMonitor")["selector"].update(matchLabels={"app": "x"})),
    ("a limit below the series", "monitoring", "sampleLimit 100",
     lambda m: only(m, "ServiceMonitor").update(sampleLimit=100)),
    ("a pool on a wrong port", "gateway", "InferencePool leads to another port",
     lambda m: only(m, "InferencePool")["targetPorts"][0].update(number=9400)),
    ("a pool without its picker", "gateway", "no Service of the overlay",
     lambda m: only(m, "InferencePool")["endpointPickerRef"]["port"].update(number=9000)),
    ("a picker that reads another port", "gateway", "metrics on another port",
     lambda m: picker_config(m, "port: 9400", "port: 50051")),
    ("a picker that reads another metric", "gateway", "reads vllm:gpu_cache_usage_perc",
     lambda m: picker_config(m, "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")),
    ("a scorer that is not declared", "gateway", "not both declared and used",
     lambda m: picker_config(m, "  - type: queue-scorer\n", "")),
    ("a route to a method that is not", "gateway", "HTTPRoute matches",
     lambda m: only(m, "HTTPRoute")["rules"][0]["matches"][0]["path"].update(
         value="/millrace.v1.GenerationService/Complete")),
    ("a route to a pool that is not", "gateway", "InferencePool pool, which is not there",
     lambda m: only(m, "HTTPRoute")["rules"][0]["backendRefs"][0].update(name="pool")),
    ("a target of KEDA's that is misspelt", "keda", "refuses the metadata",
     lambda m: only(m, "ScaledObject")["triggers"][0]["metadata"].update(targetQueues="4")),
    ("a load that KEDA divides", "keda", "for the sum of all",
     lambda m: only(m, "ScaledObject")["triggers"][0].update(metricType="AverageValue")),
]


def mutated(overlay, change):
    broken = manifests.Manifests(resources(overlay))
    change(broken)
    return broken.all


# --- tests ----------------------------------------------------------------------------------------------------------

class Agreement(unittest.TestCase):
    def test_every_overlay_agrees_with_the_binary(self):
        for overlay in OVERLAYS:
            self.assertEqual(manifests.problems(resources(overlay), FACTS), [], overlay)

    def test_every_mistake_is_reported(self):
        for name, overlay, words, change in MUTATIONS:
            with self.subTest(name):
                found = manifests.problems(mutated(overlay, change), FACTS)
                self.assertTrue(any(words in problem for problem in found), found)

    def test_the_server_runs_with_the_rendered_configuration(self):
        # It became ready with it, its log is in the format that only the file asks for, and SIGTERM ended it well.
        lines = RUNNING.server.log().splitlines()
        self.assertTrue(lines)
        for line in lines:
            json.loads(line)
        self.assertEqual(RUNNING.exit_code, 0)

    def test_the_numbers_of_the_model_are_of_the_file_that_is_fetched(self):
        self.assertAlmostEqual(RUNNING.file_bytes / README_BYTES, 1, places=3)
        model = manifests.Manifests(resources("cpu")).model_env
        readme = (ROOT / "README.md").read_text()
        self.assertIn(model["MODEL_FILE"], readme)
        self.assertIn(model["MODEL_SHA256"], readme)
        self.assertTrue(model["MODEL_URL"].endswith(model["MODEL_FILE"]))

    def test_the_cpu_overlay_needs_nothing_that_a_plain_cluster_lacks(self):
        self.assertEqual([r["kind"] for r in resources("cpu") if own_schema(r)], [])
        for kind in ("Deployment", "Service", "ConfigMap", "PodDisruptionBudget", "HorizontalPodAutoscaler",
                     "NetworkPolicy", "Namespace", "ServiceAccount"):
            self.assertIn(kind, {r["kind"] for r in resources("cpu")})

    def test_the_overlay_that_the_documentation_shows_changes_image_model_and_memory(self):
        text = (ROOT / "docs/kubernetes.md").read_text()
        example = re.search(r"```yaml\n(namespace: .*?)```", text, flags=re.DOTALL)[1]
        base = ROOT / "k8s/base"
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(os.path.realpath(folder))
            to = os.path.relpath(ROOT / "k8s", folder)
            example = example.replace("[../cpu]", f"[{to}/overlays/cpu]").replace("../../components", f"{to}/components")
            (folder / "kustomization.yaml").write_text(example)
            for name in ("millrace.conf", "model.env"):
                (folder / name).write_text((base / name).read_text().replace("Instruct-Q4_K_M", "Instruct-Q6_K"))
            found = list(yaml.safe_load_all(kustomize(folder)))
        mine = manifests.Manifests(found)
        self.assertEqual(manifests.problems(found, FACTS), [])
        self.assertEqual([schema_problem(r) for r in found], [None] * len(found))
        self.assertEqual(mine.server["image"], "registry.example/millrace:0.1.0")
        self.assertLessEqual({"cpu": "16", "memory": "40Gi"}.items(), mine.server["resources"]["limits"].items())
        self.assertIn("Q6_K", mine.config["model"])
        self.assertIn("Q6_K", mine.model_env["MODEL_FILE"])

    def test_the_model_may_lie_on_a_volume_that_outlives_the_pods(self):
        with tempfile.TemporaryDirectory() as folder:
            to = os.path.relpath(ROOT / "k8s", os.path.realpath(folder))
            (pathlib.Path(folder) / "kustomization.yaml").write_text(
                f"resources: [{to}/overlays/cpu]\ncomponents: [{to}/components/model-pvc]\n")
            found = list(yaml.safe_load_all(kustomize(folder)))
        self.assertEqual(manifests.problems(found, FACTS), [])
        self.assertEqual([schema_problem(r) for r in found], [None] * len(found))
        self.assertNotIn("emptyDir", manifests.Manifests(found).pod["volumes"][0])


def own_schema(resource):
    path = HERE / "schemas" / f"{resource['kind']}.json"
    return json.loads(path.read_text()) if path.exists() else None


def schema_problem(resource):
    """What a strict schema says against a resource: Kubernetes' own, or ours for the kinds of others."""
    try:
        if schema := own_schema(resource):
            jsonschema.Draft202012Validator(schema).validate(resource)
        else:
            kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError,
            kubernetes_validate.SchemaNotFoundError) as error:
        return str(getattr(error, "message", error))
    return None


class Schemas(unittest.TestCase):
    def test_every_resource_fits_its_schema_to_the_letter(self):
        for overlay in OVERLAYS:
            for resource in resources(overlay):
                with self.subTest(f"{overlay} {resource['kind']} {resource['metadata']['name']}"):
                    self.assertIsNone(schema_problem(resource))
        for picker in manifests.picker_configs(manifests.Manifests(resources("gateway"))):
            self.assertIsNone(schema_problem(picker))

    def test_a_misspelt_field_fits_no_schema(self):
        for overlay in OVERLAYS:
            for resource in resources(overlay):
                place = resource.get("spec", resource)
                place["misspelt"] = 1
                with self.subTest(f"{overlay} {resource['kind']} {resource['metadata']['name']}"):
                    self.assertIn("misspelt", schema_problem(resource) or "")

    def test_a_kind_without_a_schema_is_noticed(self):
        self.assertIsNotNone(schema_problem({"apiVersion": "x.io/v1", "kind": "Unknown", "metadata": {"name": "x"}}))


class Policy(unittest.TestCase):
    """checkov, once over everything; it takes seconds to start."""

    @classmethod
    def setUpClass(cls):
        checkov = PROGRAMS.parent / "checkov/bin/checkov"
        if not checkov.exists():
            raise unittest.SkipTest("checkov is not installed (tools/setup --tests)")
        folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        for overlay in OVERLAYS:
            (folder / f"{overlay}.yaml").write_text(rendered(overlay))
        broken = manifests.Manifests(resources("cpu"))
        broken.server["securityContext"]["privileged"] = True
        broken.deployment["metadata"]["name"] = "broken"
        (folder / "broken.yaml").write_text(yaml.safe_dump(broken.named("Deployment", "broken")))
        for path in DOCKERFILES:
            shutil.copy(path, folder)
        (folder / "Dockerfile.broken").write_text("FROM debian\nUSER root\n")
        done = run(checkov, "-d", folder, "--framework", "kubernetes", "dockerfile", "--skip-download", "-o", "json")
        cls.failed, cls.passed = set(), 0
        for report in json.loads(done.stdout):
            cls.passed += report["summary"]["passed"]
            for check in report["results"]["failed_checks"]:
                manifest = report["check_type"] == "kubernetes"
                where = check["resource"] if manifest else pathlib.Path(check["file_path"]).name
                cls.failed.add((check["check_id"], where.rpartition("/")[2]))

    def test_finds_nothing_but_what_has_its_reason(self):
        ours = {(check, where) for check, where in self.failed if "broken" not in where}
        self.assertEqual(ours, CHECKOV_SKIPS)
        self.assertGreater(self.passed, 300)

    def test_finds_a_privileged_container_and_a_root_image(self):
        self.assertIn(("CKV_K8S_16", "Deployment.millrace.broken"), self.failed)
        self.assertIn(("CKV_DOCKER_8", "Dockerfile.broken"), self.failed)


class Monitoring(unittest.TestCase):
    def test_rules_and_dashboards_are_the_files_that_are_tested_elsewhere(self):
        done = run(ROOT / "tools/generate_k8s_monitoring", "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        found = manifests.Manifests(resources("monitoring"))
        rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/millrace.yml").read_text())
        self.assertEqual(only(found, "PrometheusRule"), rules)
        maps = [c for c in found.of("ConfigMap") if "grafana_dashboard" in c["metadata"].get("labels", {})]
        data = {name: text for one in maps for name, text in one["data"].items()}
        self.assertEqual(data, {p.name: p.read_text() for p in (ROOT / "k8s/grafana").glob("*.json")})
        # What a ConfigMap holds at most.
        self.assertLess(max(map(len, data.values())), 1 << 20)

    def test_the_job_is_what_the_rules_select(self):
        # The operator names a job by its Service; the rules read job=~"millrace.*".
        monitor = only(manifests.Manifests(resources("monitoring")), "ServiceMonitor")
        self.assertNotIn("jobLabel", monitor)
        self.assertIn('job=~"millrace.*"', (ROOT / "deploy/prometheus/rules/millrace.yml").read_text())


class FetchModel(unittest.TestCase):
    """The script of the init container, against a real HTTP server that has the small model."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.asked = asked = []

        class Files(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *unused):
                asked.append(self.path)

        class Quiet(http.server.ThreadingHTTPServer):
            def handle_error(self, *unused):  # curl hangs up when it cannot continue
                pass

        handler = functools.partial(Files, directory=MODEL.parent)
        server = self.enterContext(Quiet(("127.0.0.1", 0), handler))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_port}/{MODEL.name}"
        self.sum = hashlib.sha256(MODEL.read_bytes()).hexdigest()

    def fetch(self, sum=None, url=None):
        environment = {"PATH": os.environ["PATH"], "MODEL_DIR": str(self.folder), "MODEL_FILE": "model.gguf",
                       "MODEL_URL": url or self.url, "MODEL_SHA256": sum or self.sum, "HOSTNAME": "pod-1"}
        script = ROOT / "k8s/base/fetch-model.sh"
        return run("sh", script, env=environment)

    def test_puts_the_model_there_once(self):
        for _ in range(2):
            done = self.fetch()
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "model.gguf").read_bytes(), MODEL.read_bytes())
        self.assertEqual(len(self.asked), 1)
        self.assertEqual({path.name for path in self.folder.iterdir()}, {"model.gguf", "model.gguf.sha256"})

    def test_a_file_that_is_not_what_was_ordered_never_gets_its_name(self):
        done = self.fetch(sum="0" * 64)
        self.assertEqual(done.returncode, 1)
        self.assertIn("SHA-256", done.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_changed_order_replaces_the_model(self):
        (self.folder / "model.gguf").write_text("an older one")
        (self.folder / "model.gguf.sha256").write_text("1" * 64)
        self.assertEqual(self.fetch().returncode, 0)
        self.assertEqual((self.folder / "model.gguf").read_bytes(), MODEL.read_bytes())

    def test_half_a_download_of_a_server_that_cannot_continue_begins_again(self):
        (self.folder / "model.gguf.pod-1.part").write_bytes(b"half")
        done = self.fetch()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "model.gguf").read_bytes(), MODEL.read_bytes())

    def test_a_model_that_is_not_there_fails(self):
        self.assertNotEqual(self.fetch(url=self.url + ".absent").returncode, 0)
        self.assertFalse((self.folder / "model.gguf").exists())


class Images(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tool = load_tool("check_image")

    def test_the_last_stage_installs_every_library_that_the_binary_loads(self):
        for path in DOCKERFILES:
            self.assertEqual(self.tool.missing_libraries(path.read_text(), BINARY), [], path.name)

    def test_the_cuda_image_installs_every_library_that_the_module_loads(self):
        if not MODULE.exists():
            self.skipTest("this build has no CUDA: no nvcc was found")
        text = (ROOT / "deploy/docker/Dockerfile.cuda").read_text()
        self.assertEqual(self.tool.missing_libraries(text, MODULE), [])
        self.assertTrue(self.tool.missing_libraries(text.replace("      libabsl20220623 \\\n", "")
                                                    .replace("      libgrpc++1.51 \\\n", "")
                                                    .replace("      libgrpc29 \\\n", ""), MODULE))

    def test_the_cuda_image_has_the_module_beside_the_binary_of_the_same_build(self):
        stages = self.tool.parse((ROOT / "deploy/docker/Dockerfile.cuda").read_text())
        build = next(words for word, words in stages[1]["steps"] if word == "RUN" and "tools/build" in words)
        self.assertIn("tools/build cuda-release millrace millrace_cuda ", build)
        *copied, folder = next(w for word, w in stages[2]["steps"] if word == "COPY" and "--from=build" in w).split()[1:]
        self.assertEqual(folder, "/usr/local/bin/")
        self.assertEqual([pathlib.Path(path).parent for path in copied], [pathlib.Path("/src/build/cuda-release")] * 2)
        self.assertEqual({pathlib.Path(path).name for path in copied}, {"millrace", "libmillrace_cuda.so"})
        self.assertIn('"libmillrace_cuda.so"', (ROOT / "runtime/backend/cuda_module.h").read_text())

    def test_the_cuda_image_is_compiled_for_the_gpus_that_it_names(self):
        text = (ROOT / "deploy/docker/Dockerfile.cuda").read_text()
        named = {number.replace(".", "") for number in re.findall(r"\b(\d+\.0) \([A-Z]", text)}
        self.assertEqual(named, {"80", "90", "100", "120"})
        with tempfile.TemporaryDirectory() as folder:
            done = run("cmake", "--preset", "cuda-release", "-B", folder, cwd=ROOT)
            if "no nvcc was found" in done.stderr:
                self.skipTest("no nvcc was found")
            self.assertEqual(done.returncode, 0, done.stderr)
            commands = json.loads((pathlib.Path(folder) / "compile_commands.json").read_text())
        kernels = [c["command"] for c in commands if c["file"].endswith(".cu") and "nvcc" in c["command"]]
        self.assertGreater(len(kernels), 10)
        for command in kernels:
            self.assertEqual({name.rstrip("a") for name in re.findall(r"sm_(\w+)", command)}, named, command)
            self.assertIn("-fstack-protector-strong", command)

    def test_a_library_that_is_left_out_is_noticed(self):
        for package in ("libutf8proc2", "libgrpc++1.51", "libcpp-httplib0.11"):
            text = DOCKERFILES[0].read_text().replace(f"      {package} \\\n", "")
            self.assertTrue(any(package in p for p in self.tool.missing_libraries(text, BINARY)), package)

    def test_bases_have_tags_and_users_have_numbers(self):
        for path in DOCKERFILES:
            stages = self.tool.parse(path.read_text())
            names = {stage["name"] for stage in stages}
            for stage in stages:
                self.assertRegex(stage["base"], r"^\S+:\d[\w.-]*$", path.name)
            steps = stages[-1]["steps"]
            self.assertIn(("USER", "10001:10001"), steps)
            self.assertIn(("ENTRYPOINT", '["/usr/local/bin/millrace"]'), steps)
            for instruction, words in (step for stage in stages for step in stage["steps"]):
                if instruction == "COPY" and words.startswith("--from="):
                    self.assertIn(words.split()[0].removeprefix("--from="), names)
                self.assertNotIn(".gguf", words)

    def test_a_build_sees_the_sources_and_no_model(self):
        files = set(self.tool.context())
        self.assertLessEqual({"CMakeLists.txt", "LICENSE", "tools/setup", "cli/main.cc", "proto/CMakeLists.txt"}, files)
        unwanted = [name for name in files if name.endswith(".gguf") or name.startswith((".git", "build", "k8s"))]
        self.assertEqual(unwanted, [])

    def test_the_hardened_preset_compiles_and_links_with_what_it_promises(self):
        with tempfile.TemporaryDirectory() as folder:
            done = run("cmake", "--preset", "hardened", "-B", folder, cwd=ROOT)
            self.assertEqual(done.returncode, 0, done.stderr)
            commands = json.loads((pathlib.Path(folder) / "compile_commands.json").read_text())
            ninja = (pathlib.Path(folder) / "build.ninja").read_text()
        ours = [c["command"] for c in commands if "/service/" in c["file"] or "/kernels/" in c["file"]]
        self.assertGreater(len(ours), 20)
        for flag in ("-D_FORTIFY_SOURCE=3", "-fstack-protector-strong"):
            self.assertTrue(all(flag in command for command in ours), flag)
        link = re.search(r"^build millrace: .*\n(?:  .*\n)*", ninja, flags=re.MULTILINE)[0]
        for flag in ("-Wl,-z,relro", "-Wl,-z,now", "-pie"):
            self.assertIn(flag, link)

    @unittest.skipUnless(LONG, "takes minutes: MILLRACE_LONG=1, as root, with mmdebstrap")
    def test_the_steps_of_the_image_make_a_server_that_serves(self):
        if os.geteuid() or not shutil.which("mmdebstrap"):
            self.skipTest("needs root and mmdebstrap")
        done = subprocess.run([ROOT / "tools/check_image"], text=True, capture_output=True, timeout=3600)
        self.assertEqual(done.returncode, 0, done.stdout[-4000:] + done.stderr[-4000:])


if __name__ == "__main__":
    unittest.main(verbosity=2)
