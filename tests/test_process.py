"""What a worker process leaves to its next job, and to its parent."""

import faulthandler
import gc
import io
import locale
import logging
import multiprocessing
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import psycopg2.extras
from psycopg2.extensions import get_wait_callback, set_wait_callback

from odoo.tests import BaseCase

from .queue_common import Clock
from odoo.addons.ir_async.service import obituary as obituary_module
from odoo.addons.ir_async.service import process_state
from odoo.addons.ir_async.service import server as server_module
from odoo.addons.ir_async.service.obituary import Mark, Obituary
from odoo.addons.ir_async.service.process_state import (
    ProcessState,
    job_folder,
    remove_folder,
)


class TestMark(BaseCase):
    """The memory by which a parent learns what its worker was doing when it ended."""

    def setUp(self):
        super().setUp()
        self.clock = Clock()
        self.startPatcher(patch.object(obituary_module, 'time', self.clock))
        self.mark = Mark()
        self.addCleanup(self.mark.close)
        self.deadline = self.clock.monotonic() + 5
        self.obituary = Obituary('prod', 7, 3, 2, self.deadline, 1)

    def test_nothing(self):
        self.assertIsNone(self.mark.read())
        self.mark.clear()
        self.assertIsNone(self.mark.read())

    def test_what_was_running(self):
        for obituary in (
            self.obituary,
            self.obituary._replace(job_id=8, deadline=None),
            self.obituary._replace(cause='cancel'),
        ):
            self.mark.set(obituary)
            self.assertEqual(self.mark.read(), obituary)
        self.mark.clear()
        self.assertIsNone(self.mark.read())

    def test_any_name_of_a_database(self):
        for dbname in ("a", 'odd "name" \\', "ß" * 31, "🙂" * 15, "x" * 63):
            self.mark.set(
                self.obituary._replace(dbname=dbname, job_id=2**31 - 1, worker_id=2**31 - 1, claim_number=2**31 - 1)
            )
            self.assertEqual(self.mark.read().dbname, dbname)

    def test_past_the_deadline_it_is_a_timeout(self):
        """Code that keeps the GIL is ended by the kernel's alarm."""
        self.mark.set(self.obituary)
        self.clock.advance(4)
        self.assertIsNone(self.mark.read().cause)
        self.clock.advance(1)
        self.assertEqual(self.mark.read().cause, 'timeout')

    def test_who_was_cancelled_did_not_time_out(self):
        self.mark.set(self.obituary._replace(cause='cancel'))
        self.clock.advance(10)
        self.assertEqual(self.mark.read().cause, 'cancel')

    def test_without_a_limit_there_is_no_timeout(self):
        self.mark.set(self.obituary._replace(deadline=None))
        self.clock.advance(10**9)
        self.assertIsNone(self.mark.read().cause)

    def test_it_outlives_the_process(self):
        pid = os.fork()
        if not pid:
            self.mark.set(self.obituary)
            os.kill(os.getpid(), signal.SIGKILL)
        _pid, status = os.waitpid(pid, 0)
        self.assertEqual(os.WTERMSIG(status), signal.SIGKILL)
        self.assertEqual(self.mark.read(), self.obituary)


class TestProcessState(BaseCase):
    """What a job changes in its process is set back."""

    def setUp(self):
        super().setUp()
        base = tempfile.mkdtemp()
        self.addCleanup(remove_folder, base)
        self.startPatcher(patch.dict(os.environ))
        self.startPatcher(patch.object(tempfile, 'tempdir', tempfile.tempdir))
        self.folder = job_folder(base)
        self.state = ProcessState(self.folder)

    def restore(self):
        with self.assertLogs('odoo.addons.ir_async.service.process_state', 'DEBUG') as log:
            self.assertEqual(self.state.restore(), [])
        return log.output

    def test_nothing_changed(self):
        with self.assertNoLogs('odoo.addons.ir_async.service.process_state', 'DEBUG'):
            self.assertEqual(self.state.restore(), [])

    def test_each_part(self):
        self.addCleanup(os.chdir, os.getcwd())
        self.addCleanup(signal.pthread_sigmask, signal.SIG_SETMASK, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        environment, folder, limit = dict(os.environ), os.getcwd(), sys.getrecursionlimit()
        processors, cpu_time, owner = os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_CPU), os.getresgid()
        number_format = 'C' if locale.setlocale(locale.LC_NUMERIC) != 'C' else 'C.UTF-8'

        def get_umask():
            os.umask(mask := os.umask(0))
            return mask

        def change_time_zone():
            os.environ['TZ'] = 'Asia/Tokyo'
            time.tzset()

        def change_environment():
            os.environ['IR_ASYNC_LEFT'] = '1'
            os.environ.pop('PATH', None)
            os.environ['HOME'] = '/nowhere'

        for part, change, read, expected in (
            ('environment', change_environment, lambda: dict(os.environ), environment | {'TMPDIR': str(self.folder)}),
            ('working directory', lambda: os.chdir('/'), os.getcwd, folder),
            ('umask', lambda: os.umask(0o123), get_umask, get_umask()),
            (
                'locale',
                lambda: locale.setlocale(locale.LC_NUMERIC, number_format),
                lambda: locale.setlocale(locale.LC_ALL),
                locale.setlocale(locale.LC_ALL),
            ),
            (
                'signal mask',
                lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}),
                lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
                signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            ),
            ('recursion limit', lambda: sys.setrecursionlimit(limit + 1), sys.getrecursionlimit, limit),
            ('time-out of sockets', lambda: socket.setdefaulttimeout(3), socket.getdefaulttimeout, None),
            (
                'wait callback of psycopg2',
                lambda: set_wait_callback(psycopg2.extras.wait_select),
                get_wait_callback,
                None,
            ),
            ('garbage collection', gc.disable, gc.isenabled, True),
            ('temporary folder', lambda: setattr(tempfile, 'tempdir', '/'), tempfile.gettempdir, str(self.folder)),
            (
                'resource limits',
                lambda: resource.setrlimit(resource.RLIMIT_CPU, (10**6, cpu_time[1])),
                lambda: resource.getrlimit(resource.RLIMIT_CPU),
                cpu_time,
            ),
            (
                'processors',
                lambda: os.sched_setaffinity(0, {min(processors)}),
                lambda: os.sched_getaffinity(0),
                processors,
            ),
            ('user and group', lambda: os.setegid(65534), os.getresgid, owner),
            ('time zone', change_time_zone, lambda: time.tzname, time.tzname),
            (
                'timers',
                lambda: signal.setitimer(signal.ITIMER_PROF, 3600),
                lambda: signal.getitimer(signal.ITIMER_PROF),
                (0, 0),
            ),
            ('trace function', lambda: sys.settrace(lambda *_: None), sys.gettrace, sys.gettrace()),
            ('profile function', lambda: sys.setprofile(lambda *_: None), sys.getprofile, sys.getprofile()),
            ('priority', lambda: os.nice(1), lambda: os.nice(0), os.nice(0)),
        ):
            if (part == 'processors' and len(processors) == 1) or (
                part in {'user and group', 'priority'} and os.getuid()
            ):
                continue
            with self.subTest(part=part):
                change()
                self.assertNotEqual(read(), expected)
                self.assertIn(part, ''.join(self.restore()))
                self.assertEqual(read(), expected)

    def test_a_delayed_end(self):
        """A watchdog that a job left running does not end the process during the next job."""
        pid = os.fork()
        if not pid:
            self.folder = job_folder(self.folder.parent)
            state = ProcessState(self.folder)
            faulthandler.dump_traceback_later(0.1, exit=True)
            state.restore()
            threading.Event().wait(0.3)
            os._exit(0)
        _pid, status = os.waitpid(pid, 0)
        self.assertEqual(status, 0)

    def test_attributes_of_the_thread(self):
        thread = threading.current_thread()
        name = thread.name
        thread.ir_async_left, thread.name = 1, "Renamed"
        self.addCleanup(setattr, thread, 'name', name)
        self.assertEqual(self.state.restore(), [])
        self.assertFalse(hasattr(thread, 'ir_async_left'))
        self.assertEqual(thread.name, name)

    def test_locks_of_the_log(self):
        """An exception can arrive inside of logging, and leave its locks taken."""
        handler = logging.StreamHandler(io.StringIO())
        self.addCleanup(handler.close)
        locks = [logging._lock, handler.lock]
        for lock in locks * 2:
            lock.acquire()
        self.assertEqual(self.state.restore(), [])
        with ThreadPoolExecutor(1) as executor:
            for lock in locks:
                self.assertTrue(executor.submit(lock.acquire, blocking=False).result())
                executor.submit(lock.release).result()

    def test_handler_with_a_lock_of_its_own(self):
        """A handler of the log may have any lock, such as one between processes, or none."""

        class Handler(logging.NullHandler):
            def createLock(self):  # noqa: N802 -- the name of logging
                self.lock = multiprocessing.RLock()

        handlers = [Handler(), Handler()]
        del handlers[0].lock
        self.assertEqual(self.state.restore(), [])

    def test_temporary_files(self):
        """Files, folders and links of a job are gone; what they point to is not."""
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)
        outside = Path(tempfile.mkdtemp(dir=self.folder.parent))
        (outside / 'kept').touch()
        with tempfile.NamedTemporaryFile(delete=False) as file:
            self.assertEqual(Path(file.name).parent, self.folder)
        Path(tempfile.mkdtemp(), 'inner').touch()
        (self.folder / 'link').symlink_to(outside)
        self.state.restore()
        self.assertEqual(list(self.folder.iterdir()), [])
        self.assertTrue((outside / 'kept').exists())

    def test_a_folder_that_the_job_removed(self):
        remove_folder(self.folder)
        self.assertEqual(self.state.restore(), [])
        self.assertTrue(self.folder.is_dir())
        remove_folder(self.folder)
        self.folder.touch()
        self.addCleanup(self.folder.unlink)
        self.assertEqual(self.state.restore(), ['temporary folder'])

    def test_the_folder_is_nobody_elses(self):
        """Another user can neither be there first, nor have what is theirs deleted."""
        self.assertNotEqual(job_folder(), job_folder())
        with self.assertRaises(FileExistsError):
            ProcessState(self.folder)
        others = Path(tempfile.mkdtemp(dir=self.folder.parent))
        (others / 'kept').touch()
        remove_folder(self.folder)
        self.folder.symlink_to(others)
        self.addCleanup(self.folder.unlink)
        self.assertEqual(self.state.restore(), ['temporary folder'])
        self.assertTrue((others / 'kept').exists())

    def test_another_environment(self):
        """Whatever a job did to it: another mapping, or what only the C library knows."""
        before = dict(os.environ)
        for change in (
            lambda: vars(os).update(environ={'LEAK': '1'}),
            os.environ.clear,
            lambda: os.putenv('LEAK', '1'),
            lambda: os.unsetenv('HOME'),
            lambda: os.environ.update(HOME='/nowhere'),
        ):
            change()
            self.assertEqual(self.state.restore(), [])
            self.assertIs(os.environ, process_state.ENVIRON)
            self.assertEqual(dict(os.environ), before)
            output = subprocess.check_output(
                [sys.executable, '-c', "import os; print(os.environ.get('LEAK'), os.environ.get('HOME'))"]
            )
            self.assertEqual(output.decode().split(), ['None', before['HOME']])

    def test_each_limit(self):
        for name in ('CORE', 'CPU', 'DATA', 'FSIZE', 'MEMLOCK', 'NOFILE', 'NPROC', 'STACK'):
            limit = getattr(resource, f'RLIMIT_{name}')
            soft, hard = before = resource.getrlimit(limit)
            lower = 2**40 if soft == resource.RLIM_INFINITY else soft - 1
            if lower < 0:
                continue
            with self.subTest(name=name):
                resource.setrlimit(limit, (lower, hard))
                self.restore()
                self.assertEqual(resource.getrlimit(limit), before)

    def test_a_limit_that_cannot_be_raised_again(self):
        """The process must end then."""
        cpu_time = resource.getrlimit(resource.RLIMIT_CPU)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_CPU, cpu_time)
        resource.setrlimit(resource.RLIMIT_CPU, (10**6, cpu_time[1]))
        error = ValueError("not allowed to raise maximum limit")
        with (
            patch.object(resource, 'setrlimit', side_effect=error),
            self.assertLogs('odoo.addons.ir_async.service.process_state', 'DEBUG'),
        ):
            self.assertEqual(self.state.restore(), ['resource limits'])

    def test_what_cannot_be_restored(self):
        """The process must end then."""
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        gone = tempfile.mkdtemp()
        os.chdir(gone)
        state = ProcessState()
        os.chdir('/')
        os.rmdir(gone)
        with self.assertLogs('odoo.addons.ir_async.service.process_state', 'DEBUG'):
            self.assertEqual(state.restore(), ['working directory'])


class TestSpawn(BaseCase):
    def test_a_signal_right_after_the_fork_is_not_lost(self):
        """It waits until the worker has its handlers: the parent sends it once."""

        def blocked():
            return server_module.STOP_SIGNALS & signal.pthread_sigmask(signal.SIG_BLOCK, ())

        class Server:
            workers = {}

            def worker_spawn(self, klass, workers_registry):
                read_fd, write_fd = os.pipe()
                pid = os.fork()
                if not pid:
                    try:
                        os.write(write_fd, str(len(blocked())).encode())
                    finally:
                        os._exit(0)
                os.waitpid(pid, 0)
                in_children.append(os.read(read_fd, 10))
                os.close(read_fd)
                os.close(write_fd)

        in_children = []
        with patch.object(server_module, '_refresh_registries'):
            server_module.spawn_workers(Server(), 2)
        self.assertEqual(in_children, [b'3', b'3'])
        self.assertFalse(blocked())
