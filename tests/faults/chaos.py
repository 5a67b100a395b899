"""What people and machines do to a running pipeline: kills, zombies, rebalances, suspended processes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.faults.process import CHAIN, LOGGING, Process

if TYPE_CHECKING:
    from tests.faults.world import World


class Chaos:
    """See the module."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self._focus = world.rng.choice(("", "", "event-handler", "stream-to-features", "stream-to-features"))
        self._suspensions: set[asyncio.Task[None]] = set()

    async def reign(self) -> None:
        """Do something bad now and then, for as long as the world is not calm."""
        actions = (
            *(self._kill_one, self._kill_one, self._kill_several, self._kill_all),
            *(self._make_zombie,) * 4,
            *(self._publish,) * 4,
            *(self._end_zombie, self._give_back_to_zombie),
            *(self._kill_and_go_on,) * 2,
            *(self._suspend_one, self._rebalance, self._drain_one, self._terminate_one, self._trim),
        )
        while not self.world.calm:
            await asyncio.sleep(self.rng.expovariate(1 / self.world.faults.chaos))
            if not self.world.calm:
                await self.rng.choice(actions)()

    def _pick(self) -> Process:
        """Return a process; often one of a certain function, and often one that is in trouble already."""
        processes = [process for processes in self.world.owners.values() for process in processes]
        if self._focus and self.rng.random() < 0.8:
            processes = self.world.owners[self._focus]
        held = [process for process in processes if process.stage.held]
        return self.rng.choice(held if held and self.rng.random() < 0.5 else processes)

    async def _kill_one(self) -> None:
        self._pick().kill()

    async def _kill_and_go_on(self) -> None:
        """Kill a process; a new one is handed what follows the messages that the old one was given."""
        old = self._pick()
        processes = self.world.owners[old.name]
        if not old.dead:
            old.kill()
            new = processes[processes.index(old)] = Process(self.world, old.name, old.shards)
            new.follow(old)
            self.world.happened["handed the next message"] += 1

    async def _kill_several(self) -> None:
        for _ in range(self.rng.randint(2, 4)):
            self._pick().kill()

    async def _kill_all(self) -> None:
        for process in self.world.processes():
            process.kill()

    async def _make_zombie(self) -> None:
        """Give a process's shards to a new one, without telling it."""
        old = self._pick()
        if not old.dead and len(self.world.zombies) < 5:
            processes = self.world.owners[old.name]
            new = processes[processes.index(old)] = Process(self.world, old.name, old.shards)
            self.world.zombies.append(old)
            self._suspend(self.rng.choice((old, old, new)))
            self.world.happened["zombie"] += 1

    async def _publish(self) -> None:
        """Let all owners of a log, and zombies, publish what waits in it."""
        for process in self.world.processes():
            if process.name in LOGGING and self.rng.random() < 0.7:
                process.publish()
                self.world.happened["publish"] += 1

    async def _suspend_one(self) -> None:
        self._suspend(self._pick())

    def _suspend(self, process: Process) -> None:
        task = asyncio.create_task(process.suspend(self.rng.choice((0.05, 0.3, 2))))
        self._suspensions.add(task)
        task.add_done_callback(self._suspensions.discard)

    async def _end_zombie(self) -> None:
        if self.world.zombies:
            self.world.zombies.pop(self.rng.randrange(len(self.world.zombies))).kill()

    async def _give_back_to_zombie(self) -> None:
        """Kill the owner; who had its shards before gets them again, and goes on with what it holds in memory."""
        for zombie in self.world.zombies:
            processes = self.world.owners[zombie.name]
            for place, owner in enumerate(processes):
                if not zombie.dead and owner.shards == zombie.shards:
                    owner.kill()
                    processes[place] = zombie
                    self.world.zombies.remove(zombie)
                    for shard in zombie.shards:
                        zombie.assign(shard)
                    return

    async def _rebalance(self) -> None:
        """Move a shard, after draining everybody or nobody."""
        processes = self.world.owners[self._pick().name]
        if len(processes) < 2 or any(process.dead for process in processes):
            return
        told = self.rng.random() < 0.5
        if told:
            await asyncio.gather(*(process.drain() for process in processes))
        giver, taker = self.rng.sample(processes, 2)
        if giver.shards and not giver.dead and not taker.dead:
            shard = self.rng.choice(sorted(giver.shards))
            giver.unassign(shard)
            taker.assign(shard)
            self.world.happened["rebalance"] += 1
        if told:
            for process in processes:
                for shard in process.shards:
                    process.assign(shard)

    async def _drain_one(self) -> None:
        process = self._pick()
        if not process.dead:
            await process.drain()
            for shard in process.shards:
                process.assign(shard)

    async def _terminate_one(self) -> None:
        process = self._pick()
        process.lose_stores(self.rng.choice((0, 0, 1, 3)))
        await process.terminate()
        self.world.happened["terminate"] += 1

    async def _trim(self) -> None:
        if self.world.ack_may_fall:
            return
        for name, reads, _ in CHAIN:
            self.world.streams.trim(reads, [name], 2**62)
