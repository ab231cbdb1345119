"""What must agree between rendered Kubernetes manifests and the server that they run.

Every function whose name begins with check_ takes (Manifests, Facts) and yields problems as text; `problems` runs
them all. Pure: what the server does is in Facts, which the test measures on the real binary.
"""
import dataclasses
import re

import yaml

# What the process still takes after its drain: gRPC's own shutdown (kGrpcGrace in service/server.cc).
SECONDS_AFTER_DRAIN = 5
# Room above the planned memory for what grows with calls: buffers of gRPC, pages through which the model is read.
HEADROOM_BYTES = 1 << 30
# What the server keeps out of its plan for the rest of the process (kReserveBytes in runtime/runner/memory_plan.cc).
RESERVE_BYTES = 256 << 20
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass
class Facts:
    """What the binary says and does."""
    version: str
    flags: set            # names of `serve`, without dashes
    unbuilt: set          # those of them that this version refuses
    parse: object         # (arguments, config text) -> complaint or None: what the binary makes of them
    ready: dict           # {health service: serving} while it serves
    draining: dict        # the same after SIGTERM, while a stream runs
    metrics: set          # names of series of a scrape
    series: int           # how many it has
    services: dict        # {gRPC service: its methods}, by reflection
    weight_bytes: int     # of the model that the manifests name
    scratch_bytes: int
    kv_bytes_per_token: int
    ask_scaler: object    # metadata -> complaint or None


class Manifests:
    """The resources of a rendered overlay."""

    def __init__(self, resources):
        self.all = resources

    def of(self, kind):
        return [r for r in self.all if r["kind"] == kind]

    def named(self, kind, name):
        return next((r for r in self.of(kind) if r["metadata"]["name"] == name), None)

    @property
    def deployment(self):
        return self.named("Deployment", "millrace")

    @property
    def pod(self):
        return self.deployment["spec"]["template"]["spec"]

    @property
    def server(self):
        return self.pod["containers"][0]

    def mounted(self, container, path):
        """The text of a file that a container sees, if it comes from a ConfigMap of the overlay."""
        for mount in container["volumeMounts"]:
            folder = mount["mountPath"].rstrip("/") + "/"
            if not path.startswith(folder):
                continue
            volume = next(v for v in self.pod["volumes"] if v["name"] == mount["name"])
            config = self.named("ConfigMap", volume.get("configMap", {}).get("name"))
            return config and config["data"].get(path.removeprefix(folder))
        return None

    @property
    def config_path(self):
        args = self.server["args"]
        return args[args.index("--config") + 1]

    @property
    def config_text(self):
        return self.mounted(self.server, self.config_path)

    @property
    def config(self):
        """{flag: value} that the server gets: of the file, then of its arguments."""
        values = {}
        for line in (self.config_text or "").splitlines():
            if line.strip() and not line.startswith("#"):
                name, _, value = line.partition("=")
                values[name.strip()] = value.strip()
        args = self.server["args"]
        given = {name[2:]: value for name, value in zip(args, args[1:]) if name.startswith("--")}
        given.pop("config", None)
        return values | given

    def port(self, flag):
        return int(self.config[flag].rpartition(":")[2])

    @property
    def model_env(self):
        names = [e["configMapRef"]["name"] for e in self.pod["initContainers"][0]["envFrom"]]
        return {k: v for name in names for k, v in (self.named("ConfigMap", name) or {"data": {}})["data"].items()}


def selects(selector, labels):
    return selector.items() <= labels.items()


def quantity(text):
    """A Kubernetes quantity as a number: 26Gi, 500m, 8."""
    number, suffix = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(text)).groups()
    if suffix == "m":
        return float(number) / 1000
    return float(number) * (UNITS[suffix[0]] if suffix.endswith("i") else 1)


def amount(text):
    """A size as flags take it: 6G, 500M."""
    return int(text.rstrip("KMGT")) * UNITS[text.lstrip("0123456789")]


def check_the_server_is_container_0(m, facts):
    if m.server["name"] != "server" or m.server["args"][0] != "serve":
        yield f"container 0 is {m.server['name']} with {m.server['args'][0]}, not the server"
    tag = m.server["image"].rpartition(":")[2]
    if tag.partition("-")[0] != facts.version:
        yield f"the image's tag is {tag}; the binary is {facts.version}"


def check_flags_are_the_servers(m, facts):
    for flag in m.config:
        if flag not in facts.flags:
            yield f"the server has no flag {flag}"
        elif flag in facts.unbuilt:
            yield f"this version does not have {flag} yet"
    complaint = facts.parse(m.server["args"], m.config_text)
    if complaint:
        yield f"the server refuses its arguments: {complaint}"


def check_gpus_are_asked_for_and_used(m, facts):
    image = m.server["image"].endswith("-cuda")
    asked = "nvidia.com/gpu" in m.server["resources"]["limits"]
    # Not auto: that would serve on the CPU of a node whose GPU fails.
    used = m.config.get("device", "auto").startswith("cuda")
    if len({image, asked, used}) > 1:
        yield f"an image {'with' if image else 'without'} CUDA, {'a' if asked else 'no'} GPU asked for, " \
              f"--device {m.config.get('device', 'auto')}"


def check_the_model_is_where_the_server_looks(m, facts):
    fetch = m.pod["initContainers"][0]
    folders = {container["name"]: mount["mountPath"] for container in (fetch, m.server)
               for mount in container["volumeMounts"] if mount["name"] == "models"}
    target = next(e["value"] for e in fetch["env"] if e["name"] == "MODEL_DIR")
    wanted = f"{folders.get(m.server['name'])}/{m.model_env.get('MODEL_FILE')}"
    if m.config.get("model") != wanted:
        yield f"the server reads {m.config.get('model')}; fetch-model makes {wanted}"
    if target != folders.get(fetch["name"]):
        yield f"fetch-model writes to {target}, which is not the volume"
    if not re.fullmatch("[0-9a-f]{64}", m.model_env.get("MODEL_SHA256", "")):
        yield "MODEL_SHA256 is no SHA-256"
    script = fetch["command"][-1]
    if m.mounted(fetch, script) is None:
        yield f"no ConfigMap is mounted as {script}"


def check_ports_are_the_servers(m, facts):
    listening = {"grpc": m.port("listen"), "metrics": m.port("metrics")}
    declared = {p["name"]: p["containerPort"] for p in m.server["ports"]}
    if declared != listening:
        yield f"the container declares {declared}; the server listens on {listening}"
    for service in m.of("Service"):
        if not selects(service["spec"]["selector"], m.deployment["spec"]["template"]["metadata"]["labels"]):
            continue
        name = service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            target = listening.get(port["targetPort"], port["targetPort"])
            if target != listening.get(port["name"]):
                yield f"Service {name}: port {port['name']} leads to {target}"
            if port["port"] != listening.get(port["name"]):
                yield f"Service {name}: port {port['name']} is {port['port']}, not the server's"
            if port["name"] == "grpc" and port.get("appProtocol") != "kubernetes.io/h2c":
                yield f"Service {name}: the gRPC port does not say that it is HTTP/2"
    for policy in m.of("NetworkPolicy"):
        if policy["metadata"]["name"] == "millrace":
            opened = {p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]}
            if opened != set(listening.values()):
                yield f"NetworkPolicy opens {sorted(opened)}; the server listens on {sorted(listening.values())}"
    for pool in m.of("InferencePool"):
        if [p["number"] for p in pool["spec"]["targetPorts"]] != [listening["grpc"]]:
            yield "InferencePool leads to another port than gRPC's"


def check_probes_ask_health_services(m, facts):
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = m.server.get(probe, {}).get("grpc")
        if not asked:
            yield f"{probe} is no gRPC probe"
            continue
        service = asked.get("service", "")
        if asked["port"] != m.port("listen"):
            yield f"{probe} asks port {asked['port']}"
        if not facts.ready.get(service):
            yield f"{probe} asks service {service!r}, which a server that serves does not say is serving"
        elif probe == "readinessProbe" and facts.draining[service]:
            yield f"readinessProbe asks {service!r}, which is serving in a drain"
        elif probe == "livenessProbe" and not facts.draining[service]:
            yield f"livenessProbe asks {service!r}, which would kill a server in its drain"


def check_the_grace_covers_the_drain(m, facts):
    pause = m.server["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = float(m.config["drain-seconds"])
    grace = m.pod["terminationGracePeriodSeconds"]
    if grace <= pause + drain + SECONDS_AFTER_DRAIN:
        yield f"killed after {grace} s; preStop {pause} + drain {drain:g} + {SECONDS_AFTER_DRAIN} takes as long"
    for picker in m.of("Deployment"):
        if picker is not m.deployment and picker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] < grace:
            yield f"{picker['metadata']['name']} goes before the streams that it has placed"


def check_memory_holds_the_plan(m, facts):
    resources = m.server["resources"]
    limit = quantity(resources["limits"]["memory"])
    kv = amount(m.config["kv-cache-bytes"])
    planned = facts.weight_bytes + facts.scratch_bytes + RESERVE_BYTES + kv
    if limit < planned + HEADROOM_BYTES:
        yield f"memory limit {limit / 1e9:.2f} GB; the plan takes {planned / 1e9:.2f} GB and calls want 1 GiB more"
    if kv < facts.kv_bytes_per_token * int(m.config["ctx"]):
        yield "the KV cache does not hold one whole context"
    if resources["requests"] != resources["limits"]:
        yield "requests and limits differ: the pod is not Guaranteed"
    if int(m.config["threads"]) > quantity(resources["limits"]["cpu"]):
        yield "more worker threads than CPUs"
    for volume in m.pod["volumes"]:
        size = volume.get("emptyDir", {}).get("sizeLimit")
        if size and quantity(size) < facts.weight_bytes:
            yield f"volume {volume['name']} is smaller than the model"


def check_the_pod_is_locked_down(m, facts):
    if m.pod.get("enableServiceLinks") is not False:
        yield "Services would set MILLRACE_ variables, where flags are read from"
    if m.pod.get("automountServiceAccountToken") is not False:
        yield "the server gets a token that it does not need"
    context = m.pod["securityContext"]
    if not context.get("runAsNonRoot") or not context.get("runAsUser") or \
            context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "the pod may run as root, or without seccomp"
    for container in m.pod["initContainers"] + m.pod["containers"]:
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or not context.get("readOnlyRootFilesystem") or \
                context.get("capabilities", {}).get("drop") != ["ALL"]:
            yield f"container {container['name']} is not locked down"


def check_selectors_find_the_pods(m, facts):
    labels = m.deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [("Deployment", m.deployment["spec"]["selector"]["matchLabels"])]
    selectors += [(f"Service {s['metadata']['name']}", s["spec"]["selector"]) for s in m.of("Service")
                  if s["metadata"]["name"] in ("millrace", "millrace-headless")]
    selectors += [(kind, r["spec"]["selector"]["matchLabels"]) for kind in ("PodDisruptionBudget", "InferencePool")
                  for r in m.of(kind)]
    selectors += [("NetworkPolicy", r["spec"]["podSelector"]["matchLabels"]) for r in m.of("NetworkPolicy")
                  if r["metadata"]["name"] == "millrace"]
    selectors += [("topologySpreadConstraints", c["labelSelector"]["matchLabels"])
                  for c in m.pod["topologySpreadConstraints"]]
    for what, selector in selectors:
        if not selects(selector, labels):
            yield f"{what} selects {selector}, which the server's pods do not have"
    for other in m.of("Deployment"):
        if other is not m.deployment:
            for what, selector in selectors:
                if selects(selector, other["spec"]["template"]["metadata"]["labels"]):
                    yield f"{what} also selects {other['metadata']['name']}"
    if not m.of("PodDisruptionBudget"):
        yield "no PodDisruptionBudget"
    kinds = {s["spec"].get("clusterIP") for s in m.of("Service") if selects(s["spec"]["selector"], labels)}
    if kinds != {None, "None"}:
        yield "want a ClusterIP and a headless Service"


def check_references_lead_somewhere(m, facts):
    namespaces = {r["metadata"]["namespace"] for r in m.all if r["kind"] != "Namespace"}
    if namespaces != {n["metadata"]["name"] for n in m.of("Namespace")}:
        yield f"resources are in {namespaces}"
    for deployment in m.of("Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        for volume in pod["volumes"]:
            if "configMap" in volume and not m.named("ConfigMap", volume["configMap"]["name"]):
                yield f"there is no ConfigMap {volume['configMap']['name']}"
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and not m.named("PersistentVolumeClaim", claim):
                yield f"there is no PersistentVolumeClaim {claim}"
        if not m.named("ServiceAccount", pod["serviceAccountName"]):
            yield f"there is no ServiceAccount {pod['serviceAccountName']}"
    for pool in m.of("InferencePool"):
        picker = pool["spec"]["endpointPickerRef"]
        service = m.named("Service", picker["name"])
        if not service or picker["port"]["number"] not in [p["port"] for p in service["spec"]["ports"]]:
            yield "the InferencePool's endpoint picker is no Service of the overlay"


def check_scaling(m, facts):
    scalers = m.of("HorizontalPodAutoscaler") + m.of("ScaledObject")
    if len(scalers) != 1:
        yield f"{len(scalers)} autoscalers; they would undo each other's work"
    if "replicas" in m.deployment["spec"]:
        yield "a fixed number of replicas undoes the autoscaler's work"
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        if not m.named(target["kind"], target["name"]):
            yield f"{scaler['kind']} scales {target['name']}, which is not there"
        least = scaler["spec"].get("minReplicas", scaler["spec"].get("minReplicaCount", 0))
        for budget in m.of("PodDisruptionBudget"):
            if budget["spec"].get("maxUnavailable", 0) >= least:
                yield f"the PodDisruptionBudget allows all of {least} replicas to be gone"
    for autoscaler in m.of("HorizontalPodAutoscaler"):
        for metric in autoscaler["spec"]["metrics"]:
            name = metric["pods"]["metric"]["name"]
            if name not in facts.metrics:
                yield f"HorizontalPodAutoscaler reads {name}, which the server does not have"
            if name == "millrace_requests_running" and \
                    quantity(metric["pods"]["target"]["averageValue"]) >= int(m.config["max-num-seqs"]):
                yield "HorizontalPodAutoscaler waits for more running requests than a server has places"
    for trigger in (t for s in m.of("ScaledObject") for t in s["spec"]["triggers"]):
        if trigger["type"] == "prometheus":
            yield from unknown_metrics("ScaledObject", trigger["metadata"]["query"], facts)
            continue
        service = m.named("Service", "millrace")["metadata"]
        wanted = f"{service['name']}.{service['namespace']}.svc.cluster.local:{m.port('listen')}"
        if trigger["metadata"]["scalerAddress"] != wanted:
            yield f"KEDA would ask {trigger['metadata']['scalerAddress']}; the servers are {wanted}"
        if trigger.get("metricType") != "Value":
            yield "KEDA would take one server's load for the sum of all (docs/adr/0016-one-load-for-the-scaler.md)"
        complaint = facts.ask_scaler(trigger["metadata"])
        if complaint:
            yield f"the server refuses the metadata of the ScaledObject: {complaint}"


def unknown_metrics(where, expression, facts):
    # The suffixes of histograms are series; record names of rules have colons elsewhere than after vllm.
    for name in re.findall(r"\b(?:millrace_|vllm:)\w+", re.sub(r"\{[^}]*\}", "", expression)):
        if name not in facts.metrics:
            yield f"{where} reads {name}, which the server does not have"


def check_scraping(m, facts):
    for monitor in m.of("ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        found = [s for s in m.of("Service") if selects(selector, s["metadata"].get("labels", {}))]
        if [s["metadata"]["name"] for s in found] != ["millrace"]:
            yield f"ServiceMonitor selects {[s['metadata']['name'] for s in found]}; want the Service millrace alone"
            continue
        ports = {p["name"]: p["port"] for p in found[0]["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if ports.get(endpoint["port"]) != m.port("metrics") or endpoint["path"] != "/metrics":
                yield f"ServiceMonitor scrapes {endpoint['port']}{endpoint['path']}, not the metrics"
        if monitor["spec"]["sampleLimit"] < 5 * facts.series:
            yield f"sampleLimit {monitor['spec']['sampleLimit']} is near the {facts.series} series of a scrape"


def check_the_picker_reads_the_servers_metrics(m, facts):
    for config in picker_configs(m):
        plugins = {p.get("name", p["type"]): p.get("parameters", {}) for p in config["plugins"]}
        if plugins["metrics-data-source"].get("port") != m.port("metrics"):
            yield "the endpoint picker looks for metrics on another port"
        for engine in plugins["core-metrics-extractor"]["engineConfigs"]:
            for key, name in engine.items():
                if key.endswith("Spec") and name and name not in facts.metrics:
                    yield f"the endpoint picker reads {name}, which the server does not have"
        used = [p["pluginRef"] for profile in config["schedulingProfiles"] for p in profile["plugins"]]
        used += [p["pluginRef"] for p in config["requestHandler"]["parsers"]]
        used += [p for s in config["dataLayer"]["sources"] for p in [s["pluginRef"]] +
                 [e["pluginRef"] for e in s["extractors"]]]
        if set(used) != set(plugins):
            yield f"plugins that are not both declared and used: {set(used) ^ set(plugins)}"


def picker_configs(m):
    maps = [c for c in m.of("ConfigMap") if "picker-config.yaml" in c["data"]]
    return [yaml.safe_load(c["data"]["picker-config.yaml"]) for c in maps]


def check_routes_lead_to_the_servers_methods(m, facts):
    for rule in (r for route in m.of("HTTPRoute") for r in route["spec"]["rules"]):
        for match in rule["matches"]:
            kind, path = match["path"]["type"], match["path"]["value"]
            service, _, method = path.strip("/").partition("/")
            if service not in facts.services or (kind == "Exact") != bool(method) or \
                    (method and method not in facts.services[service]):
                yield f"HTTPRoute matches {path}, which the server does not have"
        for backend in rule["backendRefs"]:
            there = m.named(backend["kind"], backend["name"])
            if not there:
                yield f"HTTPRoute leads to {backend['kind']} {backend['name']}, which is not there"
            elif backend["kind"] == "Service" and backend.get("port") != m.port("listen"):
                yield f"HTTPRoute leads to port {backend.get('port')}"


CHECKS = [check for name, check in list(globals().items())
          if name.startswith("check_") and check is not check_flags_are_the_servers]


def problems(resources, facts):
    manifests = Manifests(resources)
    if manifests.config_text is None:
        return [f"no ConfigMap is mounted as {manifests.config_path}"]
    # The other checks read values that make sense.
    refused = list(check_flags_are_the_servers(manifests, facts))
    return refused or [problem for check in CHECKS for problem in check(manifests, facts)]
