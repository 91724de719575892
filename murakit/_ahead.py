"""The next item of an iterator, made while the last one is at work."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

_END = object()


def ahead(iterable, depth=1):
    """Yield the items of an iterable, which a thread makes up to `depth` items in advance.

    An exception is raised where the item would have come; whoever stops early stops the thread.
    """
    iterator = iter(iterable)
    with ThreadPoolExecutor(1, thread_name_prefix="murakit-ahead") as pool:
        waiting = deque(pool.submit(next, iterator, _END) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(pool.submit(next, iterator, _END))
                yield item
        finally:
            for future in waiting:
                future.cancel()
