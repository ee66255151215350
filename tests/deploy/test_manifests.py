"""Every manifest in deploy/ says what the program behind it takes: settings, paths, times."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from starlette.routing import Route

from metric_families import STREAMS
from server import app
from settings import Settings
from tests.stage import OPERATORS_KEY, ROOT, SECRET

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DRAIN: int = Settings.model_fields["drain_seconds"].default
MARGIN = 10  # seconds beyond DRAIN_SECONDS before anybody may kill


def read(path: str) -> Any:
    """A file of YAML or TOML, from the root."""
    text = (ROOT / path).read_text()
    return tomllib.loads(text) if path.endswith(".toml") else yaml.safe_load(text)


def kube(name: str) -> Any:
    """One of the Kubernetes manifests."""
    return read(f"deploy/kubernetes/{name}.yaml")


def secret(name: str) -> dict[str, str]:
    """What one of the two Secrets holds."""
    both = yaml.safe_load_all((KUBERNETES / "secret.yaml").read_text())
    (found,) = [each["stringData"] for each in both if each["metadata"]["name"] == name]
    return dict(found)


def mounted(said: dict[str, str], folder: Path, **keys: str) -> dict[str, str]:
    """These variables, with the keys' Secret mounted at this folder as a kubelet does, by links."""
    (volume,) = container()["volumeMounts"]
    at = folder / "..data"
    at.mkdir()
    for name, text in {**secret("keyturn-keys"), **keys}.items():
        (at / name).write_text(text)
        (folder / name).symlink_to(Path("..data") / name)
    return {n: v.replace(volume["mountPath"], str(folder)) for n, v in said.items()}


def pod() -> Any:
    """What the Deployment makes."""
    return kube("deployment")["spec"]["template"]


def container() -> Any:
    """The one container of a pod."""
    (only,) = pod()["spec"]["containers"]
    return only


def in_dockerfile(path: str) -> dict[str, str]:
    """What the ENV lines of a Dockerfile set, PATH and the tools' own left out."""
    text = (ROOT / path).read_text().replace("\\\n", " ")
    found = dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.+)$", text, re.M))))
    return {
        name: value for name, value in found.items() if not name.startswith(("PATH", "PIP_", "PY"))
    }


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """Every set of variables that some manifest gives to Keyturn."""
    yield "kubernetes", {**kube("configmap")["data"], **secret("keyturn")}
    yield "fly", read("deploy/fly.toml")["env"]
    (web,) = [each for each in read("deploy/render.yaml")["services"] if each["type"] == "web"]
    yield "render", {each["key"]: each.get("value", "") for each in web["envVars"]}
    function = read("deploy/lambda.yaml")["Resources"]["Keyturn"]["Properties"]
    theirs = function["Environment"]["Variables"]
    ours = {**in_dockerfile("Dockerfile"), **in_dockerfile("deploy/lambda.Dockerfile")}
    yield "lambda", {**ours, **{n: v if isinstance(v, str) else "" for n, v in theirs.items()}}
    for name, service in read("docker-compose.yml")["services"].items():
        if service.get("image") == "keyturn":
            yield f"compose {name}", service["environment"]


ENVIRONMENTS = dict(environments())
KEYS = ("OPENAI_API_KEY", "API_SECRET_KEY")
SECRETS = {
    "OPENAI_API_KEY": OPERATORS_KEY,
    "API_SECRET_KEY": SECRET,
    "REDIS_URL": "redis://redis:6379/0",
    "ALLOWED_ORIGINS": "https://chat.example.org",
}


def settings_of(said: dict[str, str]) -> Settings:
    """The settings that these variables make, empty ones left out as Keyturn does."""
    given = {name.lower(): value for name, value in said.items() if value}
    return Settings(_env_file=None, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ENVIRONMENTS)
def test_every_variable_is_a_setting_and_fit_to_serve(where: str, tmp_path: Path) -> None:
    """No name is made up or out of date, and with the operator's secrets all are valid together."""
    said = {n: v for n, v in ENVIRONMENTS[where].items() if not n.startswith("AWS_LWA_")}
    assert set(said) <= {name.upper() for name in Settings.model_fields}
    secrets = dict(SECRETS)
    if where == "kubernetes":
        said = mounted(said, tmp_path, **{name: secrets.pop(name) for name in KEYS})
    chosen = settings_of({**secrets, **{n: v for n, v in said.items() if v}})
    assert chosen.production == ("demo" not in where)
    assert chosen.trusted_proxies
    assert [key.get_secret_value() for key in chosen.openai_api_key] == [OPERATORS_KEY]


def test_empty_secrets_are_told_by_name(tmp_path: Path) -> None:
    """Applied as it is, a pod says which keys are missing, then what else, and nothing more."""
    said, told = mounted(ENVIRONMENTS["kubernetes"], tmp_path), []
    for secrets in ({}, {name: SECRETS[name] for name in KEYS}):
        for name, text in secrets.items():
            (tmp_path / name).write_text(text)
        with pytest.raises(ValidationError) as mistakes:
            settings_of(said)
        told.append(mistakes.value.errors())
    keys, others = told
    assert {str(each["loc"][0]).upper() for each in keys} == set(KEYS)
    assert all("which is empty" in each["msg"] for each in keys)
    assert ["REDIS_URL:" in each["msg"] for each in others] == [True]


def test_the_keys_are_files_that_may_change() -> None:
    """The whole Secret is mounted, readable by the pod's user alone, where the settings look."""
    (volume,), (mount,) = pod()["spec"]["volumes"], container()["volumeMounts"]
    assert volume["name"] == mount["name"]
    assert volume["secret"] == {"secretName": "keyturn-keys", "defaultMode": 0o440}
    assert pod()["spec"]["securityContext"]["fsGroup"] == 10001
    assert "subPath" not in mount
    files = {name: f"{mount['mountPath']}/{name}" for name in secret("keyturn-keys")}
    assert set(files) == set(KEYS)
    said = kube("configmap")["data"]
    assert {name: said[f"{name}_FILE"] for name in KEYS} == files


def paths_asked() -> Iterator[tuple[str, str]]:
    """Whoever asks whether Keyturn is well, and where."""
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        yield probe, container()[probe]["httpGet"]["path"]
    (check,) = read("deploy/fly.toml")["http_service"]["checks"]
    yield "fly", check["path"]
    yield "render", read("deploy/render.yaml")["services"][0]["healthCheckPath"]
    yield "lambda", in_dockerfile("deploy/lambda.Dockerfile")["AWS_LWA_READINESS_CHECK_PATH"]
    yield "haproxy", re.findall(r"httpchk GET (\S+)", (DEPLOY / "haproxy.cfg").read_text())[0]
    yield "Dockerfile", re.findall(r"]}(/\w+)'", DOCKERFILE)[0]


@pytest.mark.parametrize(("who", "path"), list(paths_asked()))
def test_whoever_asks_asks_where_there_is_an_answer(who: str, path: str) -> None:
    """Each probe's path is a route of the app for GET."""
    routes = [each for each in app.router.routes if isinstance(each, Route)]
    assert path in {each.path for each in routes if "GET" in (each.methods or ())}, who


def graces() -> Iterator[tuple[str, int, int]]:
    """Whoever ends Keyturn: DRAIN_SECONDS there, and the seconds until it is killed."""
    said = {name: int(each.get("DRAIN_SECONDS", DRAIN)) for name, each in ENVIRONMENTS.items()}
    yield "kubernetes", said["kubernetes"], pod()["spec"]["terminationGracePeriodSeconds"]
    yield "fly", said["fly"], int(read("deploy/fly.toml")["kill_timeout"].removesuffix("s"))
    web = read("deploy/render.yaml")["services"][0]
    yield "render", said["render"], web["maxShutdownDelaySeconds"]
    unit = (DEPLOY / "keyturn.service").read_text()
    yield "systemd", DRAIN, int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)[0])
    for name, service in read("docker-compose.yml")["services"].items():
        if service.get("image") == "keyturn":
            grace = int(service["stop_grace_period"].removesuffix("s"))
            yield f"compose {name}", said[f"compose {name}"], grace


@pytest.mark.parametrize(("who", "drain", "grace"), list(graces()))
def test_nobody_kills_before_answers_have_ended(who: str, drain: int, grace: int) -> None:
    """Ten seconds beyond DRAIN_SECONDS at the least."""
    assert grace >= drain + MARGIN, who


def test_a_pod_is_nobody_and_writes_nothing() -> None:
    """The image's user, a read-only root, no capability, no token of the cluster's."""
    spec, own = pod()["spec"], container()["securityContext"]
    user = int(re.findall(r"^USER (\d+)$", DOCKERFILE, re.M)[-1])
    assert (spec["securityContext"]["runAsUser"], user) == (10001, 10001)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert own["readOnlyRootFilesystem"]
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}


def test_a_pod_leaves_time_for_what_it_waits_for() -> None:
    """The pause before SIGTERM, the drain, and what the server cuts after it, in that order."""
    command = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert command[0] == "sleep"
    drain = int(kube("configmap")["data"]["DRAIN_SECONDS"])
    assert int(command[1]) + drain + 5 < pod()["spec"]["terminationGracePeriodSeconds"]
    assert kube("deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_whoever_selects_selects_the_pods() -> None:
    """Deployment, Service, budget and network policy mean the same pods, the autoscaler theirs."""
    labels = pod()["metadata"]["labels"]
    deployment, service = kube("deployment"), kube("service")
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert kube("disruption")["spec"]["selector"]["matchLabels"] == labels
    assert kube("network")["spec"]["podSelector"]["matchLabels"] == labels
    target = kube("autoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"], "each apply would undo the autoscaler's work"


def test_ports_are_the_one_that_keyturn_listens_on() -> None:
    """From the ingress to the socket, by name and by number."""
    (port,) = container()["ports"]
    assert port["containerPort"] == int(kube("configmap")["data"]["PORT"])
    (offered,) = kube("service")["spec"]["ports"]
    (let_in,) = kube("network")["spec"]["ingress"]
    (rule,) = kube("ingress")["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert offered["targetPort"] == let_in["ports"][0]["port"] == port["name"]
    assert backend == {"name": kube("service")["metadata"]["name"], "port": {"name": port["name"]}}
    assert read("deploy/fly.toml")["http_service"]["internal_port"] == 8000
    adapter = in_dockerfile("deploy/lambda.Dockerfile")
    assert adapter["AWS_LWA_PORT"] == in_dockerfile("Dockerfile")["PORT"]


def test_the_autoscaler_reads_a_metric_of_ours() -> None:
    """Which Keyturn shows by this name, and the adapter hands on."""
    (metric,) = kube("autoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == STREAMS.name
    (rule,) = kube("prometheus-adapter")["rules"]["custom"]
    assert rule["seriesQuery"].startswith(STREAMS.name + "{")
    assert rule["name"]["matches"] == STREAMS.name


def test_private_addresses_are_out_of_reach() -> None:
    """A server that could be told where to connect still cannot reach a cloud's metadata."""
    rules = kube("network")["spec"]["egress"]
    blocks = [to["ipBlock"] for rule in rules for to in rule["to"] if "ipBlock" in to]
    (four,) = [block for block in blocks if block["cidr"] == "0.0.0.0/0"]
    assert {"169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} <= set(
        four["except"]
    )


def test_kustomize_finds_every_manifest() -> None:
    """All that is there but the values for another chart."""
    listed = set(kube("kustomization")["resources"])
    there = {path.name for path in KUBERNETES.glob("*.yaml")}
    assert there - listed == {"kustomization.yaml", "prometheus-adapter.yaml"}
    assert listed <= there


def test_the_scaled_replicas_are_those_that_nginx_asks() -> None:
    """By name, at addresses that stay; nginx alone is published, and believed with the host."""
    services = read("docker-compose.yml")["services"]
    front = services["nginx"]
    asked = re.findall(r"server ([\w-]+):8000", (DEPLOY / "nginx.conf").read_text())
    scaled = [name for name, each in services.items() if each.get("profiles") == ["scale"]]
    assert sorted([*asked, "nginx"]) == sorted(scaled)
    addresses = [services[name]["networks"]["keyturn"]["ipv4_address"] for name in scaled]
    assert len(set(addresses)) == 4
    (network,) = read("docker-compose.yml")["networks"]["keyturn"]["ipam"]["config"]
    believed = f"{front['networks']['keyturn']['ipv4_address']},{network['gateway']}"
    for name in asked:
        assert services[name]["environment"]["TRUSTED_PROXIES"] == believed
        assert "ports" not in services[name]
        assert front["depends_on"][name] == {"condition": "service_healthy"}
    assert front["ports"] == ["127.0.0.1:8000:8080"]
    assert "listen 8080;" in (DEPLOY / "nginx.conf").read_text()
    (mounted,) = front["volumes"]
    assert (ROOT / mounted.split(":")[0]).is_file()


def test_the_store_of_render_is_one_that_keeps() -> None:
    """It never evicts, is no free one, and nobody outside reaches it."""
    (store,) = [each for each in read("deploy/render.yaml")["services"] if each["type"] != "web"]
    assert (store["maxmemoryPolicy"], store["ipAllowList"]) == ("noeviction", [])
    assert store["plan"] != "free"


def test_lambda_streams_and_outlasts_a_stream() -> None:
    """The adapter and the function's address both stream; the function ends after its answer."""
    said = in_dockerfile("deploy/lambda.Dockerfile")
    function = read("deploy/lambda.yaml")["Resources"]["Keyturn"]["Properties"]
    assert said["AWS_LWA_INVOKE_MODE"] == "response_stream"
    assert function["FunctionUrlConfig"]["InvokeMode"] == "RESPONSE_STREAM"
    seconds = int(function["Environment"]["Variables"]["MAX_STREAM_SECONDS"])
    assert function["Timeout"] > seconds + 10
