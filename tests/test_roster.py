"""The idle workers: two of them are on duty, and a look counts for what its worker had heard before."""

import random

from odoo.tests import BaseCase

from odoo.addons.ir_async.service.roster import MAX_NEWER, Roster

GROUP = 'group'


class World:
    """Workers that hear the same notifications in one order, each at its own pace."""

    def __init__(self, count):
        self.order = []  # (None, name of a database), or (sender, message)
        self.rosters = [Roster(number, GROUP) for number in range(1, count + 1)]
        self.heard = [0] * count
        self.names = [set() for _number in range(count)]  # the indexes of the names that each has heard
        self.looks = {}  # message → the names that its sender had heard before

    def say(self, message):
        self.order.append(message)

    def name(self):
        self.order.append(None)

    def look(self, i, mark, names):
        message = self.rosters[i].looked('db', mark, 1)
        self.looks[message] = names
        self.say(message)

    def hear(self, i, until=None):
        """Have a worker listen. Yield each name's place, and each look's place with the names it really covers."""
        roster = self.rosters[i]
        for index in range(self.heard[i], len(self.order) if until is None else min(until, len(self.order))):
            message = self.order[index]
            if message is None:
                self.names[i].add(index)
                yield index, roster.hear_name(), None
            elif (look := roster.hear(message)) and look.seconds is not None:
                yield index, look.position, self.looks[message]
            self.heard[i] = index + 1

    def hear_all(self):
        for i in range(len(self.rosters)):
            list(self.hear(i))

    def on_duty(self):
        return [roster for roster in self.rosters if roster.is_on and roster.is_on_duty]


class TestRoster(BaseCase):
    def test_two_are_on_duty(self):
        """Whoever comes and goes: the two that came on last, once all have heard everything."""
        for seed in range(100):
            rng = random.Random(seed)
            world = World(6)
            came = []
            for _step in range(60):
                i = rng.randrange(6)
                roster = world.rosters[i]
                if roster.is_on:
                    came.remove(roster)
                    world.say(roster.go_off('db'))
                else:
                    came.append(roster)
                    world.say(roster.come_on())
                if rng.random() < 0.5:
                    list(world.hear(rng.randrange(6), rng.randrange(len(world.order) + 1)))
            world.name()
            world.hear_all()
            self.assertCountEqual(world.on_duty(), came[-2:], f"seed {seed}")

    def test_a_look_covers_only_what_its_worker_had_heard(self):
        """However late a worker hears, it never takes a name for looked at that was not. It does see what was."""
        covered = 0
        for seed in range(300):
            rng = random.Random(seed)
            world = World(4)
            looking = {}
            last = [{} for _i in range(4)]  # the names that each has heard: index → place
            for _step in range(80):
                i = rng.randrange(4)
                roster = world.rosters[i]
                what = rng.random()
                if what < 0.2:
                    world.name()
                elif what < 0.3:
                    world.say(roster.come_on())
                elif what < 0.4:
                    world.say(roster.go_off('db'))
                elif what < 0.6 and i not in looking:
                    looking[i] = roster.mark(), world.names[i].copy()
                elif what < 0.7 and i in looking:
                    world.look(i, *looking.pop(i))
                else:
                    for index, place, names in world.hear(i, rng.randrange(len(world.order) + 1)):
                        if names is None:
                            last[i][index] = place
                        elif place:
                            for named, at in last[i].items():
                                if at <= place:
                                    self.assertIn(named, names, f"seed {seed}")
                                    covered += 1
                                elif named in names:
                                    self.fail(f"seed {seed}: not seen as looked at")
        self.assertGreater(covered, 1000)

    def test_missed_names(self):
        """A worker that missed names, since its connection was lost, takes none for looked at that was not."""
        one, other = Roster(1, GROUP), Roster(2, GROUP)
        first = other.come_on()
        for roster in (one, other):
            roster.hear(first)
        other.hear_name()
        mark = other.mark()  # it begins to look
        one.connect()
        other.hear_name()
        named = one.hear_name()
        position = one.hear(other.looked('db', mark, 1)).position
        self.assertFalse(position and named <= position)

    def test_more_come_while_workers_find_jobs(self):
        """Each one that becomes busy brings more on duty, until one finds nothing or another database is named."""
        for end in (lambda world: world.name(), lambda world: world.look(0, world.rosters[0].mark(), set())):
            world = World(20)
            for roster in world.rosters:
                world.say(roster.come_on())
            counts = []
            for _step in range(3):
                world.hear_all()
                busy = world.on_duty()
                counts.append(len(busy))
                for roster in busy:
                    world.say(roster.go_off('db'))
            self.assertEqual(counts, [2, 4, 8])
            end(world)
            world.hear_all()
            self.assertEqual(len(world.on_duty()), 2)

    def test_the_dead(self):
        """One that died keeps its place until the worker that replaces it says so."""
        world = World(4)
        for roster in world.rosters:
            world.say(roster.come_on())
        world.hear_all()
        first, _second, *dead = world.rosters
        self.assertFalse(first.is_on_duty)
        for roster in dead:
            world.say(first.gone(roster._number))
        world.hear_all()
        self.assertTrue(first.is_on_duty)

    def test_strangers(self):
        """Nothing that somebody else sends is an error, or fills the memory."""
        roster = Roster(1, GROUP)
        roster.hear(roster.come_on())
        before = roster.mark()
        for text in (
            '',
            'x',
            'on 2 2.1',
            f'{GROUP} on 2',
            f'{GROUP} on 2 2.1 in db',
            f'{GROUP} off 2 2.1',
            f'{GROUP} gone 2 2.1 in db',
            f'{GROUP} looked 2 2.1 2.0+1 1',
            f'{GROUP} looked 2 2.1 in db',
            f'{GROUP} on -2 2.1',
            f'{GROUP} on ² 2.1',
            f'{GROUP} looked 2 2.1',
            f'{GROUP} looked 2 2.1 2.0+1 inf in db',
            f'{GROUP} looked 2 2.1 2.0+1 -1 in db',
            f'{GROUP} off 2 2.1 2.0+1 1 in db',
            f'{GROUP} looked {"9" * 50} 2.1 2.0+1 1 in db',
            'other on 2 2.1',
            '\n' * 7000,
        ):
            self.assertIsNone(roster.hear(text), text)
        self.assertEqual(roster.mark(), before)
        self.assertEqual(roster.rank, 0)
        for number in range(2, MAX_NEWER + 100):
            roster.hear(f'{GROUP} on {number} {number}.1')
        self.assertLessEqual(roster.rank, MAX_NEWER)

    def test_names_of_databases(self):
        """Any name comes through."""
        roster = Roster(1, GROUP)
        for name in ('a', 'a b', "x'\n%s", 'ä 1.0+1 5 in b', '1', 'in'):
            self.assertEqual(roster.hear(roster.looked(name, roster.mark(), 0.5)).database, name)
            self.assertEqual(roster.hear(roster.go_off(name)).database, name)
