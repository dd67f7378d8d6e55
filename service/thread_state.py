"""What a job can change in its thread, where the process is not its own."""
import threading


class ThreadState:
    """The attributes of the current thread."""

    def __init__(self):
        self._attributes = dict(vars(threading.current_thread()))

    def restore(self):
        """Undo what a job changed; called in the thread in which it ran."""
        attributes = vars(threading.current_thread())
        for name in attributes.keys() - self._attributes.keys():
            del attributes[name]
        # What Python itself keeps there changes by itself.
        attributes.update({name: value for name, value in self._attributes.items() if name == '_name' or not name.startswith('_')})
