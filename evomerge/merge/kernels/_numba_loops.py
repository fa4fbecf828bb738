"""The inner loops of the block kernels, compiled by numba: one pass over memory where torch needs one per operation.

Each function does, element by element, exactly the operations of the plain methods in their order, so its results are
the same bits; multiply and add are fused only where `linear` asks for it. Nothing here checks its arguments or knows
torch: tensors come as addresses of contiguous memory on the CPU, float32 or (widened on the way in, rounded to nearest
even on the way out) bfloat16. All functions release the interpreter's lock.

Ask `native.compiled()` for this module; it needs the optional package numba. The first use on a machine compiles for a
few seconds, later ones read numba's cache.

One file although it is long: numba takes a compiled function from its cache while the function's own file is unchanged,
whatever became of the helpers that it was compiled with, were they in another one.
"""

# numba infers the types; docstrings say which they are
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, disallow-any-generics=False
from __future__ import annotations

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic

FLOAT32, BFLOAT16 = 0, 1
# Elements worked on at a time: short enough for a few float32 buffers of this length to stay in the nearest caches,
# long enough for the processor to foresee what will be read.
STEP = 4096

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_ZERO, _ONE = np.float32(0), np.float32(1)
_ROW = 4096  # words per row of the fingerprint


def _pointer_to(element):
    @intrinsic
    def pointer(typing, address):
        kind = types.CPointer(element)

        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(kind))

        return kind(types.int64), generate

    return pointer


_float32_at = _pointer_to(types.float32)
_int16_at = _pointer_to(types.int16)
_int32_at = _pointer_to(types.int32)
_uint16_at = _pointer_to(types.uint16)
_int64_at = _pointer_to(types.int64)
_uint8_at = _pointer_to(types.uint8)


@intrinsic
def _fused(typing, x, y, z):
    """Return x * y + z in one rounding."""

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@njit(nogil=True, error_model="numpy", cache=True)
def _load(address, kind, first, count, scratch):
    """Return elements `first` to `first + count` as float32: the memory itself, or widened copies in `scratch`."""
    if kind == FLOAT32:
        return carray(_float32_at(address + 4 * first), count)
    halves = carray(_uint16_at(address + 2 * first), count)
    bits = scratch.view(np.uint32)
    for i in range(count):
        bits[i] = np.uint32(halves[i]) << np.uint32(16)  # bfloat16 is the upper half of a float32
    return scratch[:count]


@njit(nogil=True, error_model="numpy", cache=True)
def _target(address, kind, first, count, scratch):
    """Return where to write elements `first` to `first + count` as float32; `_store` brings them home."""
    if kind == FLOAT32:
        return carray(_float32_at(address + 4 * first), count)
    return scratch[:count]


@njit(nogil=True, error_model="numpy", cache=True)
def _store(values, address, kind, first, count):
    """Round what was written to `_target` to nearest even, where it is not home already; NaN stays NaN."""
    if kind == BFLOAT16:
        halves = carray(_uint16_at(address + 2 * first), count)
        bits = values.view(np.uint32)
        for i in range(count):
            b = bits[i]
            # adds half a unit, and one more bit if the kept part is odd
            rounded = (b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            nan = (b & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)  # rounding could carry a NaN over to infinity
            halves[i] = np.uint16(np.uint32(0x7FC0) if nan else rounded)


@njit(nogil=True, error_model="numpy", cache=True)
def add_up(out, out_kind, start, count, base, base_kind, inputs, kinds, weight, divisor, scale, fused):
    """Write (base +) scale * (sum of weight * (input - base)) / divisor; without a base, address 0, the plain sum.

    Four inputs are added in one pass. Where there are fewer, negative zeros, the one number whose addition changes no
    bit, stand in for the missing ones and for the sum before the first.

    Args:
        out, out_kind: address of the block to write, FLOAT32 or BFLOAT16.
        start, count: where in its tensor the block starts, and how long it is, in elements.
        base, base_kind: address and dtype of the whole base.
        inputs, kinds: the same for the inputs, int64 arrays. None of them is written.
        weight: float32 array.
        divisor, scale: float32; 1 leaves the bits as they are.
        fused: add each product in one rounding instead of two.
    """
    models, based = len(inputs), base != 0
    wide, total, origin = np.empty((4, STEP), np.float32), np.empty(STEP, np.float32), np.empty(STEP, np.float32)
    nothing = np.full(STEP, np.float32(-0.0))  # x + -0.0 is x in every bit, also for -0.0
    for first in range(0, count, STEP):
        length = min(STEP, count - first)
        to = _target(out, out_kind, first, length, total)
        index = start + first
        zero = _load(base, base_kind, index, length, origin) if based else nothing[:length]
        for j in range(0, models, 4):
            into = to if j + 4 >= models and not based else total[:length]
            before = total[:length] if j else nothing[:length]
            a = _load(inputs[j], kinds[j], index, length, wide[0])
            b = _load(inputs[j + 1], kinds[j + 1], index, length, wide[1]) if j + 1 < models else nothing[:length]
            c = _load(inputs[j + 2], kinds[j + 2], index, length, wide[2]) if j + 2 < models else nothing[:length]
            d = _load(inputs[j + 3], kinds[j + 3], index, length, wide[3]) if j + 3 < models else nothing[:length]
            u = weight[j]
            v = weight[j + 1] if j + 1 < models else _ONE
            w = weight[j + 2] if j + 2 < models else _ONE
            x = weight[j + 3] if j + 3 < models else _ONE
            if based:
                _add_deltas(before, zero, a, b, c, d, u, v, w, x, models - j, into)
            elif fused and divisor != _ONE and j + 4 >= models:
                for i in range(length):
                    y = _fused(d[i], x, _fused(c[i], w, _fused(b[i], v, _fused(a[i], u, before[i]))))
                    into[i] = y / divisor
            elif fused:
                for i in range(length):
                    into[i] = _fused(d[i], x, _fused(c[i], w, _fused(b[i], v, _fused(a[i], u, before[i]))))
            else:
                for i in range(length):
                    into[i] = before[i] + a[i] * u + b[i] * v + c[i] * w + d[i] * x
        if based:
            for i in range(length):
                to[i] = zero[i] + total[i] / divisor * scale
        elif divisor != _ONE and not fused:
            for i in range(length):
                to[i] = to[i] / divisor
        _store(to, out, out_kind, first, length)


@njit(nogil=True, error_model="numpy", cache=True)
def _add_deltas(before, start, a, b, c, d, u, v, w, x, models, into):
    """Add up to four weighted task vectors; what stands in for a missing model is not a model, so it is left out."""
    if models >= 4:
        for i in range(len(into)):
            s = start[i]
            into[i] = before[i] + (a[i] - s) * u + (b[i] - s) * v + (c[i] - s) * w + (d[i] - s) * x
    elif models == 3:
        for i in range(len(into)):
            s = start[i]
            into[i] = before[i] + (a[i] - s) * u + (b[i] - s) * v + (c[i] - s) * w
    elif models == 2:
        for i in range(len(into)):
            s = start[i]
            into[i] = before[i] + (a[i] - s) * u + (b[i] - s) * v
    else:
        for i in range(len(into)):
            into[i] = before[i] + (a[i] - start[i]) * u


@njit(nogil=True, error_model="numpy", cache=True)
def _disjoint(kept, models, count, weight, normalize, total, divisor, merged):
    """Write the disjoint merge of the weighted deltas `kept`, (models, STEP), into `merged`."""
    for i in range(count):
        total[i] = kept[0, i]
        merged[i] = _ZERO
        divisor[i] = _ZERO
    for j in range(1, models):
        for i in range(count):
            total[i] = total[i] + kept[j, i]  # left to right over models, as `sum_of`
    for j in range(models):
        w = weight[j]
        for i in range(count):
            x = kept[j, i]
            agrees = (x > _ZERO) if total[i] >= _ZERO else (x < _ZERO)  # a zero sum elects +
            merged[i] = merged[i] + (x if agrees else _ZERO)
            divisor[i] = divisor[i] + (w if agrees else _ZERO)
    if normalize:
        for i in range(count):
            d = divisor[i]
            merged[i] = merged[i] / (_ONE if d == _ZERO else d) + _ZERO  # plus zero: no negative zeros
    else:
        for i in range(count):
            merged[i] = merged[i] + _ZERO


@njit(nogil=True, error_model="numpy", cache=True)
def _finish_four(kept, weight, normalize, origin, scale, to):
    """Write origin + scale * the disjoint merge of four weighted deltas (zeros for missing ones); all in registers."""
    a, b, c, d = kept[0], kept[1], kept[2], kept[3]  # (models or 4, STEP); missing models are zero rows
    u, v, w, x = weight[0], weight[1], weight[2], weight[3]
    for i in range(len(to)):
        to[i] = origin[i] + _merged_four(a[i], b[i], c[i], d[i], u, v, w, x, normalize) * scale


@njit(nogil=True, error_model="numpy", cache=True)
def _elect(kept, models, count, weight, normalize, origin, scale, to, total, votes, merged):
    """Write origin + scale * the disjoint merge of `kept`, whose rows beyond `models` are zero."""
    if models <= 4:
        _finish_four(kept, weight, normalize, origin, scale, to)
        return
    _disjoint(kept, models, count, weight, normalize, total, votes, merged)
    for i in range(count):
        to[i] = origin[i] + merged[i] * scale


@njit(nogil=True, error_model="numpy", cache=True)
def trim(out, out_kind, start, count, base, base_kind, inputs, kinds, weight, value, last, normalize, scale):
    """Write base + scale * the disjoint merge of deltas trimmed at their cuts (`thresholds.Cut`).

    Args:
        out, out_kind, start, count, base, base_kind, inputs, kinds, scale: as in `add_up`.
        weight: float32 array, filled up with zeros to four at least.
        value, last: of the cuts; float32 and int64 arrays.
        normalize: divide by the weights of those who agree.
    """
    models = len(inputs)
    kept = np.zeros((max(models, 4), STEP), np.float32)
    wide, narrow, rounding = np.empty((4, STEP), np.float32), np.empty(STEP, np.float32), np.empty(STEP, np.float32)
    total, votes, merged = np.empty(STEP, np.float32), np.empty(STEP, np.float32), np.empty(STEP, np.float32)
    for first in range(0, count, STEP):
        length = min(STEP, count - first)
        index = start + first
        origin = _load(base, base_kind, index, length, narrow)
        to = _target(out, out_kind, first, length, rounding)
        if models <= 4 and not _straddled(last, index, length):
            a = _load(inputs[0], kinds[0], index, length, wide[0])
            # a model equal to the base changes nothing and agrees with no other model
            b = _load(inputs[1], kinds[1], index, length, wide[1]) if models > 1 else origin
            c = _load(inputs[2], kinds[2], index, length, wide[2]) if models > 2 else origin
            d = _load(inputs[3], kinds[3], index, length, wide[3]) if models > 3 else origin
            _trim_four(a, b, c, d, origin, weight, _bounds(value, last, index, length), normalize, scale, to)
        else:
            for j in range(models):
                # how many elements of this chunk lie before the cut's end
                equal = min(max(last[j] + 1 - index, 0), length)
                given = _load(inputs[j], kinds[j], index, length, wide[0])
                _trim_one(given, origin, weight[j], value[j], equal, kept[j])
            _elect(kept, models, length, weight, normalize, origin, scale, to, total, votes, merged)
        _store(to, out, out_kind, first, length)


@njit(nogil=True, error_model="numpy", cache=True)
def _straddled(last, index, length):
    """Return whether a stretch holds the end of a cut, where what is kept changes."""
    found = False
    for j in range(len(last)):
        found = found or index <= last[j] < index + length - 1
    return found


@njit(nogil=True, error_model="numpy", cache=True)
def _bounds(value, last, index, length):
    """Return per model (four of them) the magnitude above which entries of a stretch stay."""
    bounds = np.zeros(4, np.float32)
    for j in range(len(value)):
        bounds[j] = value[j]
        if last[j] >= index + length - 1:  # equal ones stay too: the number just below, or less than nothing
            bounds[j] = np.nextafter(value[j], np.float32(-1))
    return bounds


@njit(nogil=True, error_model="numpy", cache=True)
def _trim_four(a, b, c, d, origin, weight, bounds, normalize, scale, to):
    """Write origin + scale * the disjoint merge of four trimmed deltas; all in registers."""
    u, v, w, x = weight[0], weight[1], weight[2], weight[3]
    e, f, g, h = bounds[0], bounds[1], bounds[2], bounds[3]
    for i in range(len(to)):
        o = origin[i]
        p, q, r, s = a[i] - o, b[i] - o, c[i] - o, d[i] - o
        p = (p if abs(p) > e else _ZERO) * u
        q = (q if abs(q) > f else _ZERO) * v
        r = (r if abs(r) > g else _ZERO) * w
        s = (s if abs(s) > h else _ZERO) * x
        to[i] = o + _merged_four(p, q, r, s, u, v, w, x, normalize) * scale


@njit(nogil=True, error_model="numpy", cache=True)
def _merged_four(p, q, r, s, u, v, w, x, normalize):
    """Return the disjoint merge of one entry of four weighted deltas with their weights."""
    sign = _ONE if p + q + r + s >= _ZERO else -_ONE
    votes_p, votes_q, votes_r, votes_s = p * sign > _ZERO, q * sign > _ZERO, r * sign > _ZERO, s * sign > _ZERO
    merged = (p if votes_p else _ZERO) + (q if votes_q else _ZERO)
    merged = merged + (r if votes_r else _ZERO) + (s if votes_s else _ZERO)
    if normalize:
        divisor = (u if votes_p else _ZERO) + (v if votes_q else _ZERO)
        divisor = divisor + (w if votes_r else _ZERO) + (x if votes_s else _ZERO)
        merged = merged / (_ONE if divisor == _ZERO else divisor)
    return merged + _ZERO


@njit(nogil=True, error_model="numpy", cache=True)
def _trim_one(given, origin, w, bound, equal, row):
    """Write a weighted, trimmed delta into `row`; among the first `equal` entries those of the bound's size stay."""
    for i in range(equal):
        x = given[i] - origin[i]
        row[i] = (x if abs(x) >= bound else _ZERO) * w
    # loops that start at zero are compiled to vector instructions
    given, origin, row = given[equal:], origin[equal:], row[equal:]
    for i in range(len(given)):
        x = given[i] - origin[i]
        row[i] = (x if abs(x) > bound else _ZERO) * w


@njit(nogil=True, error_model="numpy", cache=True)
def _uniform(key, start, hashes, into):
    """Write the uniform numbers of elements from `start` (even) on, `masks.uniform`."""
    count = len(into)
    origin = key + (np.uint64(start // 2) + np.uint64(1)) * _GOLDEN  # one hash serves two elements
    for i in range((count + 1) // 2):
        z = origin + np.uint64(i) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        hashes[i] = z ^ (z >> np.uint64(31))
    halves = hashes.view(np.uint32)  # low half first
    for i in range(count):
        # the upper 24 bits: exact in float32
        into[i] = np.float32(np.int32(halves[i] >> np.uint32(8))) * np.float32(2.0**-24)


@njit(nogil=True, error_model="numpy", cache=True)
def _draw(density, key, start, hashes, into):
    """Write one where an element's draw is below `density`, else zero (`masks.bernoulli`); `start` is even."""
    count = len(into)
    if density >= _ONE:
        into[:] = _ONE
        return
    _uniform(key, start, hashes, into)
    for i in range(count):
        into[i] = _ONE if into[i] < density else _ZERO


@njit(nogil=True, error_model="numpy", cache=True)
def drop(
    out, out_kind, start, count, base, base_kind, inputs, kinds, weight, density, factor, keys, elect, normalize,
    divisor, scale,
):  # fmt: skip
    """Write base + scale * the merge of deltas dropped at random and rescaled: DARE.

    Args:
        out, out_kind, start (even), count, base, base_kind, inputs, kinds, divisor, scale: as in `add_up`.
        weight: as in `trim`.
        density, factor: float32 arrays.
        keys: uint64 array.
        elect: merge disjointly; else the sum is divided by `divisor`.
        normalize: with elect, divide by the weights of those who agree.
    """
    models = len(inputs)
    kept = np.zeros((max(models, 4), STEP), np.float32)
    hashes = np.empty(STEP // 2, np.uint64)
    wide, narrow, rounding = np.empty(STEP, np.float32), np.empty(STEP, np.float32), np.empty(STEP, np.float32)
    total, votes, merged = np.empty(STEP, np.float32), np.empty(STEP, np.float32), np.empty(STEP, np.float32)
    for first in range(0, count, STEP):
        length = min(STEP, count - first)
        origin = _load(base, base_kind, start + first, length, narrow)
        for j in range(models):
            row = kept[j][:length]
            given = _load(inputs[j], kinds[j], start + first, length, wide)
            _draw(density[j], keys[j], start + first, hashes, row)
            w, f = weight[j], factor[j]
            for i in range(length):
                row[i] = (given[i] - origin[i]) * row[i] * f * w  # the order of roundings is that of the plain method
            if density[j] <= _ZERO:  # zeros, not zeros with a delta's sign
                for i in range(length):
                    row[i] = _ZERO * w
        to = _target(out, out_kind, first, length, rounding)
        if elect:
            _elect(kept, models, length, weight, normalize, origin, scale, to, total, votes, merged)
        else:
            merged[:length] = kept[0][:length]
            for j in range(1, models):
                row = kept[j]
                for i in range(length):
                    merged[i] = merged[i] + row[i]
            for i in range(length):
                to[i] = origin[i] + merged[i] / divisor * scale
        _store(to, out, out_kind, first, length)


@njit(nogil=True, error_model="numpy", cache=True)
def kept_magnitudes(into, base, base_kind, source, kind, first, count, density, key):
    """Write the magnitudes of what DARE keeps from element `first` (even) on into `into`, not rescaled."""
    narrow, wide, hashes = np.empty(STEP, np.float32), np.empty(STEP, np.float32), np.empty(STEP // 2, np.uint64)
    for done in range(0, count, STEP):
        length = min(STEP, count - done)
        row = into[done : done + length]
        origin = _load(base, base_kind, first + done, length, narrow)
        given = _load(source, kind, first + done, length, wide)
        _draw(density, key, first + done, hashes, row)
        for i in range(length):
            row[i] = abs(given[i] - origin[i]) * row[i]


@njit(nogil=True, error_model="numpy", cache=True)
def thin_by_rank(
    out, source, kind, base, base_kind, count, start, ranks, width, top, two, epsilon, floor, key, own
):  # fmt: skip
    """Write source - base with entries dropped at random, each with the chance that its rank gives it: DELLA.

    Args:
        out: address of float32 memory.
        source, kind, base, base_kind: addresses and dtypes of stretches of `count` elements.
        start: index of their first element in the tensor, even.
        ranks, width: of the whole tensor, integers of 2 or 4 bytes.
        top: the highest rank; chances are rank / top * two * epsilon + floor, float32 all of them.
        key: of the mask, uint64.
        own: divide by the chance.
    """
    narrow, wide, draws = np.empty(STEP, np.float32), np.empty(STEP, np.float32), np.empty(STEP, np.float32)
    hashes, chance = np.empty(STEP // 2, np.uint64), np.empty(STEP, np.float32)
    for first in range(0, count, STEP):
        length = min(STEP, count - first)
        index = start + first
        to = carray(_float32_at(out + 4 * first), length)
        origin = _load(base, base_kind, first, length, narrow)
        given = _load(source, kind, first, length, wide)
        _uniform(key, index, hashes, draws[:length])
        if width == 2:
            short = carray(_int16_at(ranks + 2 * index), length)
            for i in range(length):
                chance[i] = np.float32(short[i]) / top * two * epsilon + floor
        else:
            long = carray(_int32_at(ranks + 4 * index), length)
            for i in range(length):
                chance[i] = np.float32(long[i]) / top * two * epsilon + floor
        for i in range(length):
            # a product, so that -0.0 stays -0.0
            to[i] = (given[i] - origin[i]) * (_ONE if draws[i] < chance[i] else _ZERO)
        if own:
            for i in range(length):
                to[i] = to[i] / chance[i]


@njit(nogil=True, error_model="numpy", cache=True)
def variances(out, base, base_kind, inputs, kinds, count):
    """Write the population variance of the task vectors input - base over models, entry by entry, in float64 steps.

    Args:
        out: address of float32 memory.
        base, base_kind, inputs, kinds: as in `add_up`.
        count: elements.
    """
    models = len(inputs)
    number = np.float64(models)
    narrow, wide = np.empty(STEP, np.float32), np.empty(STEP, np.float32)
    deltas, mean, total = np.empty((models, STEP)), np.empty(STEP), np.empty(STEP)
    for first in range(0, count, STEP):
        length = min(STEP, count - first)
        origin = _load(base, base_kind, first, length, narrow)
        mean[:length] = 0.0
        total[:length] = 0.0
        for j in range(models):
            given, row = _load(inputs[j], kinds[j], first, length, wide), deltas[j]
            for i in range(length):
                row[i] = np.float64(given[i] - origin[i])  # the difference is float32, as in the plain method
                mean[i] += row[i]
        for i in range(length):
            mean[i] /= number
        for j in range(models):
            row = deltas[j]
            for i in range(length):
                away = row[i] - mean[i]
                total[i] += away * away
        to = carray(_float32_at(out + 4 * first), length)
        for i in range(length):
            to[i] = np.float32(total[i] / number)


@njit(nogil=True, error_model="numpy", cache=True)
def _magnitude_bits(base, base_kind, source, kind, first, count, narrow, wide, bits):
    """Write the magnitudes of a delta as bits, uint32, which sort like the magnitudes."""
    origin = _load(base, base_kind, first, count, narrow)
    given = _load(source, kind, first, count, wide)
    delta = bits.view(np.float32)  # the same memory: writing floats fills the bits
    for i in range(count):
        delta[i] = abs(given[i] - origin[i])


_DIGITS = ((0, 11), (11, 10), (21, 10))  # (lowest bit, bits) of the 31 bits of a magnitude


@njit(nogil=True, error_model="numpy", cache=True)
def ranked(base, base_kind, source, kind, count):
    """Return the indices of a delta's entries by falling magnitude, ties by index, int32: a radix sort.

    Magnitude and index travel in one word. Digits of 8 bits: more write positions than that leave the cache.
    """
    pairs, other = np.empty(count, np.uint64), np.empty(count, np.uint64)
    narrow, wide, bits = np.empty(STEP, np.float32), np.empty(STEP, np.float32), np.empty(STEP, np.uint32)
    tables = np.zeros((4, 256), np.int64)
    for first in range(0, count, STEP):
        length = min(STEP, count - first)
        _magnitude_bits(base, base_kind, source, kind, first, length, narrow, wide, bits)
        for i in range(length):
            key = np.uint32(0x7FFFFFFF) - bits[i]  # turned round, so that ascending keys are falling magnitudes
            pairs[first + i] = (np.uint64(key) << np.uint64(32)) | np.uint64(first + i)
            for digit in range(4):
                tables[digit, (key >> np.uint32(8 * digit)) & np.uint32(255)] += 1  # all four histograms in one pass
    for digit in range(4):
        low, table, position = np.uint64(32 + 8 * digit), tables[digit], np.int64(0)
        for b in range(256):
            size = table[b]
            table[b] = position  # histogram -> first position of each digit
            position += size
        for i in range(count):
            pair = pairs[i]
            b = (pair >> low) & np.uint64(255)
            other[table[b]] = pair
            table[b] += 1
        pairs, other = other, pairs  # each digit's pass is stable, so the last one leaves all sorted
    order = np.empty(count, np.int32)
    for i in range(count):
        order[i] = np.int32(pairs[i] & np.uint64(0x7FFFFFFF))
    return order


@njit(nogil=True, error_model="numpy", cache=True)
def select(base, base_kind, source, kind, count, kept):
    """Return (value, last) of the cut that keeps `kept` entries, 0 < kept < count: a radix selection, no scratch."""
    narrow, wide, bits = np.empty(STEP, np.float32), np.empty(STEP, np.float32), np.empty(STEP, np.uint32)
    known, wanted = np.uint32(0), np.int64(kept)  # bits of the value found so far, from the top; rank among the rest
    for digit in range(2, -1, -1):
        low, width = _DIGITS[digit]
        table = np.zeros(1 << width, np.int64)
        above = low + width
        for first in range(0, count, STEP):
            length = min(STEP, count - first)
            _magnitude_bits(base, base_kind, source, kind, first, length, narrow, wide, bits)
            for i in range(length):
                if above > 30 or (bits[i] >> np.uint32(above)) == (known >> np.uint32(above)):
                    table[(bits[i] >> np.uint32(low)) & np.uint32((1 << width) - 1)] += 1
        b = (1 << width) - 1  # from the largest digit down
        while table[b] < wanted:
            wanted -= table[b]
            b -= 1
        known |= np.uint32(b) << np.uint32(low)  # one digit more of the wanted magnitude
    for first in range(0, count, STEP):
        length = min(STEP, count - first)
        _magnitude_bits(base, base_kind, source, kind, first, length, narrow, wide, bits)
        equal = 0
        for i in range(length):
            equal += bits[i] == known
        if equal < wanted:
            wanted -= equal
            continue
        for i in range(length):
            if bits[i] == known:
                wanted -= 1
                if wanted == 0:
                    found = np.empty(1, np.uint32)
                    found[0] = known
                    return found.view(np.float32)[0], np.int64(first + i)
    return _ZERO, np.int64(-1)


@njit(nogil=True, cache=True)
def hash_rows(address, size, keys, shift, exponents, sums):
    """Write the sums of the fingerprint's rows over `size` bytes into `sums`; return whether all values are finite.

    Args:
        address, size: of the memory, in bytes; the last word is filled up with zeros.
        keys: int64, one row.
        shift: of the fingerprint.
        exponents: the bits of the exponent of each number in a word, int64, (4,); repeated where there are fewer.
        sums: int64, one number per row.
    """
    words = size // 8
    e, f, g, h = exponents[0], exponents[1], exponents[2], exponents[3]
    bad = False
    for row in range(len(sums)):
        first = row * _ROW
        length = max(min(_ROW, words - first), 0)
        memory = carray(_int64_at(address + 8 * first), length)
        total = np.int64(0)
        for i in range(length):
            word = memory[i]
            total += (word + (word >> shift)) * keys[i]  # int64 overflow wraps: arithmetic modulo 2**64
            bad |= ((word & e) == e) | ((word & f) == f) | ((word & g) == g) | ((word & h) == h)
        if row == len(sums) - 1 and size % 8:
            rest = carray(_uint8_at(address + 8 * words), size % 8)
            word = np.int64(0)
            for i in range(size % 8):
                word |= np.int64(rest[i]) << np.int64(8 * i)  # little-endian, as the whole words
            total += (word + (word >> shift)) * keys[words - first]
            bad |= ((word & e) == e) | ((word & f) == f) | ((word & g) == g) | ((word & h) == h)
        sums[row] = total
    return not bad


@njit(nogil=True, cache=True)
def finish_hash(sums, shift, stream):
    """Return the hash of a tensor from the sums of its rows; see `fingerprint.finish`."""
    total = np.int64(0)
    for row in range(len(sums)):
        key = (np.uint64(row + 1) + np.uint64(stream)) * _GOLDEN
        key = (key ^ (key >> np.uint64(30))) * _MIX_1
        key = (key ^ (key >> np.uint64(27))) * _MIX_2
        key = key ^ (key >> np.uint64(31))  # SplitMix64 of the row's number
        total += (sums[row] + (sums[row] >> shift)) * np.int64(key | np.uint64(1))  # odd keys lose no bits
    return total
