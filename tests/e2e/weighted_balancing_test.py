"""The real Envoy weighs real servers by the load that they report (ORCA): who reports more of it gets fewer calls.

Envoy's weights are of rate / load, and without weights it takes turns, however slow a server is. So calls that are uneven
are uneven by the reports alone.
"""
import re
import unittest

from balancer_test import SERVERS, Cluster, Load, own_channel, tokens
from envoy import Envoy, wait_until
from harness import CALL_SECONDS, Collected, main, pb_grpc, request

PLACES = 8  # of a server
TAKEN = 6  # of one server, by streams that do not come through Envoy
PERIOD = 0.5  # seconds from one making of weights to the next: there are reports with every call
CALLS = 90  # to see how they are shared out
EVEN = CALLS / SERVERS
FEW = EVEN / 2  # weights are of load: a sixth of an idle server's, and then of what rate is left


class WeightedBalancing(unittest.TestCase):
    def setUp(self):
        self.cluster = self.enterContext(Cluster("--max-num-seqs", PLACES))
        self.envoy = self.enterContext(Envoy(self.cluster.targets, by_load=PERIOD))
        self.envoy.wait_healthy(*self.cluster.targets)
        self.channel = self.enterContext(own_channel(self.envoy.target))

    def of_each(self, what):
        """A figure of Envoy's of each server."""
        found = dict(re.findall(rf"^millrace::(\S+?:\d+)::{what}::(\d+)$", self.envoy.admin("/clusters"), re.M))
        return [int(found[target]) for target in self.cluster.targets]

    def share_out(self):
        """How many of CALLS calls, one after the other, each server gets from Envoy."""
        stub, before = pb_grpc.GenerationServiceStub(self.channel), self.of_each("rq_total")
        for _ in range(CALLS):
            Collected(stub.Generate(request([1, 2], stopping=tokens(4)), timeout=CALL_SECONDS))
        return [after - b for after, b in zip(self.of_each("rq_total"), before)]

    def test_a_server_that_reports_more_load_gets_fewer_calls_until_its_load_is_gone(self):
        """Although the others are idle whenever a call of theirs has ended."""
        wait_until("Envoy has weights", lambda: self.share_out() and min(self.of_each("weight")) > 1)
        alike = self.share_out()
        for count in alike:
            self.assertAlmostEqual(count, EVEN, delta=EVEN / 2, msg=alike)
        at = max(range(SERVERS), key=alike.__getitem__)
        with Load(self.cluster.targets[at], callers=TAKEN, channels=1, stopping=tokens(400)) as load:
            wait_until("it gets few calls", lambda: self.share_out()[at] < FEW)
            loaded, weights = self.share_out(), self.of_each("weight")
        self.assertEqual(load.errors, [])
        self.assertLess(loaded[at], FEW)
        self.assertLess(weights[at], min(weights[:at] + weights[at + 1:]))
        wait_until("it gets calls again", lambda: self.share_out()[at] > FEW)
        print(f"calls when all are idle: {alike}; with server {at} loaded: {loaded}, weights {weights}; then: {self.share_out()}")


if __name__ == "__main__":
    main()
