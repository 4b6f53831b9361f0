"""The driver of the Ray job of an attempt on several nodes: ``python -m artesian.engines.ray.gang FOLDER``.

It takes a placement group, one bundle on each of the nodes that the plan names, starts an agent in each,
and waits. The first part of the gang that fails ends the others; so does the loss of a node. What came of
it all is the verdict, a file in FOLDER: nothing of the attempt runs by the time it is there.
"""

import logging
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from artesian.engines.gang import Meeting
from artesian.engines.local.records import AttemptFolder
from artesian.engines.ray.agent import NodeAgent
from artesian.engines.ray.files import read_request, words
from artesian.engines.ray.verdict import Verdict, early, exit_code, stop_grace_s, write_verdict

_LOOK_S = 0.1
_CHECK_S = 1.0
"""How often to see whether the nodes are still there while something is waited for on them."""
_OTHERS_GRACE_S = 2.0
"""What the rest of a gang gets to save its state when a part of it has failed, as under ``artesian launch``."""
_CALLS = 4
"""Calls of an agent that may run at once: a run, its repetition, stops."""


class Gang:
    """One attempt, from the placement group to the verdict."""

    def __init__(self, folder: Path) -> None:
        self._folder = AttemptFolder(folder)
        self._request = read_request(folder)
        self._nodes: list[dict[str, Any]] = self._request["nodes"]
        self._is_stopping = False
        self._group: PlacementGroup | None = None

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM: what to do about it is for the next look."""
        del number, frame
        self._is_stopping = True

    def run(self) -> Verdict | None:
        """Return the verdict; None where the attempt is not for this driver to run."""
        if self._folder.claim() is not None:
            return None  # fenced off, or run by a driver that an earlier head of this Ray had
        verdict = self._take_group()
        if verdict is None:
            verdict = self._run_agents()
        if self._group is not None:
            remove_placement_group(self._group)
        return verdict

    # -- the placement group ------------------------------------------------------------------------

    def _take_group(self) -> Verdict | None:
        """Wait for a bundle on each node; return why there will be none."""
        if (missing := self._missing()) is not None:
            return missing
        self._group = placement_group(
            [node["bundle"] for node in self._nodes],
            strategy="STRICT_SPREAD",
            bundle_label_selector=[{"ray.io/node-id": node["ray_id"]} for node in self._nodes],
        )
        deadline_s = time.monotonic() + self._request["group_timeout_s"]
        checked_s = time.monotonic()
        while not self._group.wait(_LOOK_S):
            if self._is_stopping:
                return early()
            if time.monotonic() >= checked_s + _CHECK_S:
                checked_s = time.monotonic()
                if (missing := self._missing()) is not None:
                    return missing
            if time.monotonic() >= deadline_s:
                wanted = ", ".join(f"{node['name']}: {words(node['bundle'])}" for node in self._nodes)
                text = f"no placement group after {self._request['group_timeout_s']:g} s: others hold what it wants ({wanted})"
                return Verdict(at_s=time.time(), cause="preempted", message=text)
        return None

    def _missing(self) -> Verdict | None:
        """Return why no placement group can come to be, however long it waits; None where one can."""
        alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        for node in self._nodes:
            has = alive.get(node["ray_id"])
            if has is None:
                return Verdict(at_s=time.time(), cause="node_lost", message=f"node {node['name']} is gone")
            short = {name: amount for name, amount in node["bundle"].items() if has.get(name, 0) < amount}
            if short:
                have = words({name: has.get(name, 0) for name in short})
                text = f"infeasible: {words(short)} of node {node['name']}, which has {have}"
                return Verdict(at_s=time.time(), cause="start_failed", message=text)
        return None

    # -- the agents ---------------------------------------------------------------------------------

    def _run_agents(self) -> Verdict:
        is_gang = bool(self._request["workers"])
        agents = [self._agent(index) for index in range(len(self._nodes) if is_gang else 1)]
        first = self._meet(agents)
        if isinstance(first, Verdict):
            return first
        meeting = first if is_gang else None
        runs = {agent.run.remote(meeting): index for index, agent in enumerate(agents)}
        verdict: Verdict | None = None
        stops: dict[Any, int] = {}
        grace_s = _OTHERS_GRACE_S
        is_told = False
        while runs:
            done, _ = ray.wait(list(runs), num_returns=1, timeout=_LOOK_S)
            for call in done:
                index = runs.pop(call)
                try:
                    ended = ray.get(call)
                except ActorUnavailableError:
                    # For now: it is heard of again, or found dead, by asking it once more.
                    time.sleep(_LOOK_S)
                    runs[agents[index].run.remote(meeting)] = index
                    continue
                except RayActorError as error:
                    verdict = verdict or self._lost(index, error)
                    continue
                if verdict is None and not _is_well(ended):
                    verdict = self._verdict(index, ended)
            if not is_told and (verdict is not None or self._is_stopping):
                is_told = True
                if self._is_stopping:
                    grace_s = stop_grace_s(self._folder, self._request)
                stops = {agents[index].stop.remote(grace_s): index for index in runs.values()}
            stops = self._under_way(stops, agents, grace_s)
        return verdict or Verdict(at_s=time.time())

    @staticmethod
    def _under_way(stops: Mapping[Any, int], agents: Sequence[Any], grace_s: float) -> dict[Any, int]:
        """Return the stops that are not answered; those that may have been lost on their way are told again."""
        left = dict(stops)
        done, _ = ray.wait(list(stops), num_returns=len(stops), timeout=0) if stops else ([], [])
        for call in done:
            index = left.pop(call)
            try:
                ray.get(call)
            except ActorUnavailableError:
                left[agents[index].stop.remote(grace_s)] = index
            except RayActorError:
                continue  # the call that runs its part tells of it
        return left

    def _meet(self, agents: Sequence[Any]) -> Meeting | Verdict:
        """Wait until all agents are up, and return where they meet; or why they will not be.

        From then on Ray tells of their end. Before, it would wait for a node that has died to come back.
        """
        calls = {agent.address.remote(): index for index, agent in enumerate(agents)}
        first: tuple[str, int] | None = None
        checked_s = time.monotonic()
        while calls:
            done, _ = ray.wait(list(calls), num_returns=1, timeout=_LOOK_S)
            for call in done:
                index = calls.pop(call)
                try:
                    address = ray.get(call)
                except RayActorError as error:
                    return self._lost(index, error)
                first = address if index == 0 else first
            if self._is_stopping:
                return early()
            if time.monotonic() >= checked_s + _CHECK_S:
                checked_s = time.monotonic()
                if (missing := self._missing()) is not None:
                    return missing
        assert first is not None
        return Meeting.at(*first)

    def _agent(self, index: int) -> Any:
        assert self._group is not None
        bundle = dict(self._nodes[index]["bundle"])
        memory = bundle.pop("memory", None)
        options = {
            "num_cpus": bundle.pop("CPU", 0),
            "num_gpus": bundle.pop("GPU", 0),
            "memory": memory,
            "resources": bundle,
            "max_concurrency": _CALLS,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                placement_group=self._group, placement_group_bundle_index=index
            ),
        }
        return ray.remote(NodeAgent).options(**options).remote(str(self._folder.path), index)

    def _verdict(self, index: int, ended: Mapping[str, Any] | None) -> Verdict:
        if ended is None:
            text = f"what looked after the attempt on node {self._nodes[index]['name']} is gone, and left no word of how it ended"
            return Verdict(at_s=time.time(), cause="node_lost", message=text, first=index)
        return Verdict(at_s=ended["at_s"], first=index)

    def _lost(self, index: int, error: RayActorError) -> Verdict:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = f"node {self._nodes[index]['name']}: {lines[0] if lines else type(error).__name__}"
        return Verdict(at_s=time.time(), cause="node_lost", message=text, first=index)


def _is_well(ended: Mapping[str, Any] | None) -> bool:
    return ended is not None and ended["exit_code"] == 0


def main(folder: Path) -> int:
    """Run the attempt, and return 0 where it ended well."""
    gang = Gang(folder)
    signal.signal(signal.SIGTERM, gang.stop)
    ray.init(log_to_driver=False, logging_level=logging.WARNING)
    signal.signal(signal.SIGTERM, gang.stop)  # ray.init puts a handler of its own in its place
    verdict = gang.run()
    if verdict is None:
        return 0
    write_verdict(folder, verdict)
    return exit_code(folder, verdict)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
