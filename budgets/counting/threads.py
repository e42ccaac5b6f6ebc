"""What a forward does in other threads: what sees operators is of one thread, and none may do its work unseen."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.pool import ThreadPool
from threading import Thread, get_ident
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from featherpress.budgets.counting.operators import facts_of

#: Methods that hand a function to threads of a pool; all others call one of these.
_POOLED: tuple[tuple[Any, str], ...] = (
    (ThreadPoolExecutor, "submit"),
    *((ThreadPool, name) for name in ("apply_async", "_map_async", "imap", "imap_unordered")),
)


class _Watch:
    """Tells of operators that do more than move data, in threads that the present one starts or hands something to."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        #: None once nobody listens: a thread may go on.
        self.tell: Callable[[str], None] | None = tell
        self.threads = {get_ident()}

    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self.threads.add(get_ident())
        with _Mode(self):
            return function(*args, **kwargs)

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return partial(self.run, function) if get_ident() in self.threads else function


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
    def __init__(self, watch: _Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        facts = facts_of(func)
        if self.watch.tell and not facts.free:
            self.watch.tell(facts.name)
        return func(*args, **(kwargs or {}))


@contextmanager
def watched(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell of each operator that threads run which are started or handed something here."""
    watch = _Watch(tell)
    start, pooled = Thread.start, [(pool, name, getattr(pool, name)) for pool, name in _POOLED]

    def started(self: Thread) -> None:
        self.run = watch.wrap(self.run)  # type: ignore[method-assign]
        start(self)

    def handed(hand: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
            return hand(self, watch.wrap(func), *args, **kwargs)

        return wrapped

    Thread.start = started  # type: ignore[method-assign]
    for pool, name, usual in pooled:
        setattr(pool, name, handed(usual))
    try:
        yield
    finally:
        Thread.start = start  # type: ignore[method-assign]
        for pool, name, usual in pooled:
            setattr(pool, name, usual)
        watch.tell = None
