"""Items are made in advance, in order, and nothing is left behind."""

import threading

import pytest

from murakit.utils._threading import ahead


def test_items_come_in_order():
    assert list(ahead(iter(range(50)), depth=3)) == list(range(50))
    assert list(ahead([])) == []


def test_the_next_item_is_made_while_this_one_is_at_work():
    made = [threading.Event() for _ in range(3)]

    def items():
        for event in made:
            event.set()
            yield event

    for number, _ in enumerate(ahead(items())):
        if number < 2:
            assert made[number + 1].wait(timeout=10)


def test_an_error_comes_where_the_item_would_have():
    def items():
        yield 1
        raise KeyError("two")

    seen = []
    with pytest.raises(KeyError, match="two"):
        for item in ahead(items()):
            seen.append(item)
    assert seen == [1]


def test_stopping_early_leaves_no_thread():
    before = threading.active_count()
    iterator = ahead(iter(range(1000)))
    assert next(iterator) == 0
    iterator.close()
    assert threading.active_count() == before
