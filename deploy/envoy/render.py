#!/usr/bin/env python3
"""Writes a copy of envoy.yaml for given servers, ports and files.

usage: render.py --server HOST:PORT [--server ...] [--listen HOST:PORT] [--cert F --key F --ca F] > envoy.yaml

The copy differs from envoy.yaml beside this file only in what the flags name. --plain adds a second listener without TLS
for callers on the same machine or inside a mesh; its callers have no certificate, so all of them are one tenant.
"""
import argparse
import copy
import pathlib
import sys

import yaml

TEMPLATE = pathlib.Path(__file__).resolve().parent / "envoy.yaml"
# As in the comment of the template's circuit breakers.
REQUESTS_PER_SERVER = 512
WEIGHTED = "extensions.load_balancing_policies.client_side_weighted_round_robin"


def parse_address(text):
    """(host, port) of HOST:PORT or [IPV6]:PORT."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"'{text}' is no HOST:PORT")
    return host.strip("[]"), int(port)


def socket_address(text):
    host, port = parse_address(text)
    return {"socket_address": {"address": host, "port_value": port}}


def connection_manager(listener):
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def http_filter(listener, name):
    found = [f for f in connection_manager(listener)["http_filters"] if f["name"] == "envoy.filters.http." + name]
    return found[0]["typed_config"]


def weigh_by_load(cluster, seconds):
    """Weights, made anew every so many seconds, of the load reports (ORCA) that come with calls, in place of least request."""
    del cluster["lb_policy"], cluster["least_request_lb_config"]
    # A server has the median weight until it has reported for as long, and again when it has had no call for ten seconds,
    # over which it reports its rate: what it last said is then of no use.
    policy = {"@type": f"type.googleapis.com/envoy.{WEIGHTED}.v3.ClientSideWeightedRoundRobin",
              "weight_update_period": f"{seconds}s", "blackout_period": f"{seconds}s", "weight_expiration_period": "10s"}
    named = {"name": f"envoy.{WEIGHTED.removeprefix('extensions.')}", "typed_config": policy}
    cluster["load_balancing_policy"] = {"policies": [{"typed_extension_config": named}]}


def render(servers, listen=None, plain=None, admin=None, cert=None, key=None, ca=None, descriptor=None, access_log=None,
           connection_age=None, health_interval=None, by_load=None):
    """The configuration as a tree. What is None stays as in the template; listen="" leaves the TLS listener out."""
    tree = yaml.safe_load(TEMPLATE.read_text())
    listener, = tree["static_resources"]["listeners"]
    cluster, = tree["static_resources"]["clusters"]
    if admin is not None:
        tree["admin"]["address"] = socket_address(admin)
    if listen:
        listener["address"] = socket_address(listen)
    if descriptor is not None:
        http_filter(listener, "grpc_json_transcoder")["proto_descriptor"] = str(descriptor)
    if access_log is not None:
        connection_manager(listener)["access_log"][0]["typed_config"]["path"] = str(access_log)
    if connection_age is not None:
        connection_manager(listener)["common_http_protocol_options"]["max_connection_duration"] = f"{connection_age}s"
    tls = listener["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    if cert is not None:
        tls["tls_certificates"][0]["certificate_chain"]["filename"] = str(cert)
    if key is not None:
        tls["tls_certificates"][0]["private_key"]["filename"] = str(key)
    if ca is not None:
        tls["validation_context"]["trusted_ca"]["filename"] = str(ca)
    if plain is not None:
        second = copy.deepcopy(listener)
        second["name"] = "plain"
        second["address"] = socket_address(plain)
        del second["filter_chains"][0]["transport_socket"]
        tree["static_resources"]["listeners"].append(second)
    if listen == "":
        tree["static_resources"]["listeners"].remove(listener)
    endpoints = cluster["load_assignment"]["endpoints"][0]
    endpoints["lb_endpoints"] = [{"endpoint": {"address": socket_address(server)}} for server in servers]
    limits = cluster["circuit_breakers"]["thresholds"][0]
    limits["max_requests"] = limits["max_pending_requests"] = REQUESTS_PER_SERVER * len(servers)
    if health_interval is not None:
        check = cluster["health_checks"][0]
        check["interval"] = check["no_traffic_interval"] = f"{health_interval}s"
    if by_load is not None:
        weigh_by_load(cluster, by_load)
    return tree


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    address = "HOST:PORT"
    parser.add_argument("--server", dest="servers", action="append", required=True, metavar=address,
                        help="a millrace server, or a name with the addresses of several; repeatable")
    parser.add_argument("--listen", metavar=address, help="where callers connect with TLS (0.0.0.0:8443)")
    parser.add_argument("--plain", metavar=address, help="where callers connect without (nowhere)")
    parser.add_argument("--admin", metavar=address, help="statistics and drain (127.0.0.1:9901)")
    parser.add_argument("--cert", metavar="FILE", help="Envoy's certificate (/etc/envoy/tls/tls.crt)")
    parser.add_argument("--key", metavar="FILE", help="its key (/etc/envoy/tls/tls.key)")
    parser.add_argument("--ca", metavar="FILE", help="who signs callers' certificates (/etc/envoy/tls/ca.crt)")
    parser.add_argument("--descriptor", metavar="FILE", help="of generation.proto, by protoc (/etc/envoy/millrace.pb)")
    parser.add_argument("--access-log", metavar="FILE", help="(/dev/stdout)")
    parser.add_argument("--connection-age", type=float, metavar="SECONDS", help="when callers must connect anew (600)")
    parser.add_argument("--health-interval", type=float, metavar="SECONDS", help="between two health checks (1)")
    parser.add_argument("--by-load", type=float, nargs="?", const=1.0, metavar="SECONDS",
                        help="weigh servers by the load that they report, every SECONDS (1), and not by open streams")
    arguments = vars(parser.parse_args())
    try:
        tree = render(**arguments)
    except ValueError as error:
        print(f"render.py: {error}; see render.py --help", file=sys.stderr)
        return 2
    print("# Written by render.py from envoy.yaml, where the comments are.")
    yaml.safe_dump(tree, sys.stdout, sort_keys=False, width=120)
    return 0


if __name__ == "__main__":
    sys.exit(main())
