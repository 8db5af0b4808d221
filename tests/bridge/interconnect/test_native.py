"""The enumeration in C refuses what it would have to trust."""

from __future__ import annotations

import errno

from pyvfio_user.bridge.hotpath._native import ffi, lib


def test_rows_must_point_backwards_and_be_few() -> None:
    none = [0] * 65
    assert lib.pvu_orders_new(65, none, none, none, 0, 0) == ffi.NULL
    assert lib.pvu_orders_new(2, [0b10, 0], [0, 0], [0, 0], 0, 0) == ffi.NULL
    assert lib.pvu_orders_new(2, [0, 0], [0, 0b10], [0, 0], 0, 0) == ffi.NULL


def test_data_must_be_inside_the_image() -> None:
    orders = ffi.gc(lib.pvu_orders_new(1, [0], [0], [0], 0, 0), lib.pvu_orders_free)

    def expect(at: int, size: int, image: int) -> int:
        data = ffi.new("pvu_effect_data[]", [(at, size, bytes(64))])
        return int(lib.pvu_orders_expect(orders, data, bytes(image), image))

    assert expect(0, 8, 8) == 0
    assert expect(1, 8, 8) == -errno.EINVAL
    assert expect(9, 0, 8) == -errno.EINVAL
    assert expect(0, 65, 4096) == -errno.EINVAL
    assert expect(0, 8, 4097) == -errno.EINVAL


def test_sixty_four_effects_in_order_are_one_behaviour() -> None:
    rows = [(1 << n) - 1 for n in range(64)]
    orders = ffi.gc(lib.pvu_orders_new(64, rows, rows, [0] * 64, 0, 0), lib.pvu_orders_free)
    blocks = ffi.new("uint64_t[]", 2 * 64)
    assert lib.pvu_orders_next(orders, blocks, 2) == 1
    assert list(blocks)[:64] == [1 << n for n in range(64)]
    assert lib.pvu_orders_next(orders, blocks, 2) == 0


def test_all_passive_is_one_behaviour_and_absent_ones_never_arrive() -> None:
    everything = (1 << 64) - 1
    orders = ffi.gc(lib.pvu_orders_new(64, [0] * 64, [0] * 64, [0] * 64, 1, everything), lib.pvu_orders_free)
    blocks = ffi.new("uint64_t[]", 64)
    assert lib.pvu_orders_next(orders, blocks, 1) == 1
    assert list(blocks) == [*(1 << n for n in range(1, 64)), 0]
    assert lib.pvu_orders_next(orders, blocks, 1) == 0
