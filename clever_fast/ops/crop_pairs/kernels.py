"""Triton: every pair of a teacher's and a student's crop in one pass over the logits.

For an image n, with x_v = s_v / (student_temp ln 2) and y_g = (t_g - c) / (teacher_temp ln 2), both softmaxes are
powers of two. A sum a_v of each student crop, b_g of each teacher crop and d_gv of each pair g != v give all the rest:

    form           a_v      b_g      d_gv         value of a pair          its gradient, times student_temp
    CROSS_ENTROPY  sum 2^x  sum 2^y  sum 2^y x    ln 2 (log2 a - d / b)    Q - P
    COSINE         sum 4^x  sum 4^y  sum 2^y 2^x  d / sqrt(a b)            Q (P - Q <P, Q>), Q and P of length 1
    DOT            sum 2^x  sum 2^y  sum 2^y 2^x  d / (a b)                Q (P - <P, Q>)

Exponents are relative to a maximum: a running one in every lane (a lane owns GROUP neighbouring prototypes of a block),
or, BOUNDED, a constant. The sums stay in their lanes and meet once, at the end; every program writes its own, so the
result does not depend on the order of the programs.
"""

import triton
import triton.language as tl

CROSS_ENTROPY = tl.constexpr(0)
COSINE = tl.constexpr(1)
DOT = tl.constexpr(2)
GROUP = tl.constexpr(8)  # neighbouring prototypes of one lane: 16 bytes of a 16-bit row
LOWEST = tl.constexpr(-1e30)  # a running maximum before the first logit; finite, so that differences are too
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _load(row, k, K, MASKED: tl.constexpr):
    """One row's logits at k in float32; 0 past the end."""
    if MASKED:
        return tl.load(row + k, mask=k < K, other=0.0).to(tl.float32)
    else:
        return tl.load(row + k).to(tl.float32)


@triton.jit
def _load_crops(row, step, CROPS: tl.constexpr, k, K, MASKED: tl.constexpr):
    """The rows of all crops, a tuple; first of all, so that the loads are under way together."""
    rows = ()
    for crop in tl.static_range(CROPS):
        rows = rows + (_load(row + crop * step, k, K, MASKED),)
    return rows


@triton.jit
def _exponentials(logits, scale, inside, highest, BOUNDED: tl.constexpr, MASKED: tl.constexpr):
    """Exponents relative to the lane's running maximum, 2 to them, the new maximum, and the old one relative to it."""
    if BOUNDED:
        raised = highest
    elif MASKED:
        raised = tl.maximum(highest, tl.max(tl.where(inside, logits, float("-inf")), 1) * scale)
    else:
        raised = tl.maximum(highest, tl.max(logits, 1) * scale)
    a = logits * scale - raised[:, None]
    e = tl.exp2(a)
    if MASKED:
        e = tl.where(inside, e, 0.0)
    return a, e, raised, highest - raised


@triton.jit
def _bound(lowest_center, teacher_scale):
    """The middle of where the maximum of a centred teacher within [-1, 1] can lie; the student's is 0."""
    return -tl.load(lowest_center) * teacher_scale


@triton.jit
def _accumulate(
    student, teacher, center, k, K, student_step, teacher_step, student_scale, teacher_scale,
    s_max, s_sum, t_max, t_sum, cross,
    V0: tl.constexpr, V: tl.constexpr, G: tl.constexpr, FORM: tl.constexpr, BOUNDED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Adds one block of prototypes to the lanes' sums."""
    inside = k < K
    c = _load(center, k, K, MASKED)
    t_rows = _load_crops(teacher, teacher_step, G, k, K, MASKED)
    s_rows = _load_crops(student, student_step, V, k, K, MASKED)

    new_t_max = ()
    new_t_sum = ()
    t_before = ()  # the old sum under the new maximum
    t_exp = ()
    t_scale = ()
    for g in tl.static_range(G):
        a, e, raised, fall = _exponentials(t_rows[g] - c, teacher_scale, inside, t_max[g], BOUNDED, MASKED)
        scale = tl.exp2(fall)
        if FORM == COSINE:
            before = t_sum[g] if BOUNDED else t_sum[g] * scale * scale
            new_t_sum = new_t_sum + (before + tl.sum(e * e, 1),)
        else:
            before = t_sum[g] if BOUNDED else t_sum[g] * scale
            new_t_sum = new_t_sum + (before + tl.sum(e, 1),)
        t_before = t_before + (before,)
        new_t_max = new_t_max + (raised,)
        t_exp = t_exp + (e,)
        t_scale = t_scale + (scale,)

    new_s_max = ()
    new_s_sum = ()
    new_cross = ()
    for v in tl.static_range(V):
        a, e, raised, fall = _exponentials(s_rows[v], student_scale, inside, s_max[v], BOUNDED, MASKED)
        scale = tl.exp2(fall)
        if FORM == COSINE:
            new_s_sum = new_s_sum + ((s_sum[v] if BOUNDED else s_sum[v] * scale * scale) + tl.sum(e * e, 1),)
        else:
            new_s_sum = new_s_sum + ((s_sum[v] if BOUNDED else s_sum[v] * scale) + tl.sum(e, 1),)
        new_s_max = new_s_max + (raised,)
        for g in tl.static_range(G):
            old = cross[v * G + g]
            if V0 + v == g:
                new_cross = new_cross + (old,)
            elif FORM == CROSS_ENTROPY:
                if not BOUNDED:
                    old = old * t_scale[g] + t_before[g] * fall
                new_cross = new_cross + (old + tl.sum(t_exp[g] * a, 1),)
            else:
                if not BOUNDED:
                    old = old * t_scale[g] * scale
                new_cross = new_cross + (old + tl.sum(t_exp[g] * e, 1),)
    return new_s_max, new_s_sum, new_t_max, new_t_sum, new_cross


@triton.jit
def _merge(
    s_max, s_sum, t_max, t_sum, cross,
    V0: tl.constexpr, V: tl.constexpr, G: tl.constexpr, FORM: tl.constexpr, BOUNDED: tl.constexpr,
):  # fmt: skip
    """The sums of all lanes (or splits) as one: vectors in, scalars out."""
    t_top = ()
    t_total = ()
    t_weight = ()
    t_lanes = ()  # each lane's sum under the common maximum
    for g in tl.static_range(G):
        top = 0.0 if BOUNDED else tl.max(t_max[g], 0)
        weight = 1.0 if BOUNDED else tl.exp2(t_max[g] - top)
        lanes = t_sum[g] * weight * weight if FORM == COSINE else t_sum[g] * weight
        t_top = t_top + (top,)
        t_total = t_total + (tl.sum(lanes, 0),)
        t_weight = t_weight + (weight,)
        t_lanes = t_lanes + (lanes,)
    s_top = ()
    s_total = ()
    total = ()
    for v in tl.static_range(V):
        top = 0.0 if BOUNDED else tl.max(s_max[v], 0)
        weight = 1.0 if BOUNDED else tl.exp2(s_max[v] - top)
        s_top = s_top + (top,)
        s_total = s_total + (tl.sum(s_sum[v] * weight * weight if FORM == COSINE else s_sum[v] * weight, 0),)
        for g in tl.static_range(G):
            if V0 + v == g:
                total = total + (0.0,)
            elif FORM == CROSS_ENTROPY:
                lanes = cross[v * G + g] * t_weight[g]
                if not BOUNDED:
                    lanes += (s_max[v] - top) * t_lanes[g]
                total = total + (tl.sum(lanes, 0),)
            else:
                total = total + (tl.sum(cross[v * G + g] * t_weight[g] * weight, 0),)
    return s_top, s_total, t_top, t_total, total


@triton.jit
def forward(
    student, teacher, center, lowest_center, parts, K, chunk, splits,
    student_n, student_v, teacher_n, teacher_g, student_scale, teacher_scale,
    V0: tl.constexpr, V: tl.constexpr, G: tl.constexpr, FORM: tl.constexpr, BOUNDED: tl.constexpr,
    UNIT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One image and one split of the prototypes: its sums to parts (N, splits, 2G + 2V + VG).

    student (V, N, K), teacher (G, N, K): any float dtype, rows contiguous; K and their strides are counted in UNITs of
    elements, which tells the compiler that rows can be read 16 bytes at a time; center (K,) float32; crops V0 .. V0 + V
    of the student; chunk: elements of a split, whole blocks.
    """
    n = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    K = K * UNIT
    start = split * chunk
    end = tl.minimum(start + chunk, K)
    even = start + (end - start) // BLOCK * BLOCK
    student_step = tl.cast(student_v, tl.int64) * UNIT
    teacher_step = tl.cast(teacher_g, tl.int64) * UNIT
    student += n * student_n * UNIT + V0 * student_step
    teacher += n * teacher_n * UNIT
    LANES: tl.constexpr = BLOCK // GROUP
    k = tl.arange(0, LANES)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]

    zero = tl.zeros((LANES,), tl.float32)
    s_max = (zero if BOUNDED else zero + LOWEST,) * V
    t_max = (zero + _bound(lowest_center, teacher_scale) if BOUNDED else zero + LOWEST,) * G
    s_sum = (zero,) * V
    t_sum = (zero,) * G
    cross = (zero,) * (V * G)
    for at in range(start, even, BLOCK):
        s_max, s_sum, t_max, t_sum, cross = _accumulate(
            student, teacher, center, at + k, K, student_step, teacher_step, student_scale, teacher_scale,
            s_max, s_sum, t_max, t_sum, cross, V0, V, G, FORM, BOUNDED, False,
        )  # fmt: skip
    for at in range(even, end, BLOCK):  # the last, incomplete block: a mask would cost all others their wide loads
        s_max, s_sum, t_max, t_sum, cross = _accumulate(
            student, teacher, center, at + k, K, student_step, teacher_step, student_scale, teacher_scale,
            s_max, s_sum, t_max, t_sum, cross, V0, V, G, FORM, BOUNDED, True,
        )  # fmt: skip

    s_top, s_total, t_top, t_total, total = _merge(s_max, s_sum, t_max, t_sum, cross, V0, V, G, FORM, BOUNDED)
    parts += (n * splits + split) * (2 * G + 2 * V + V * G)
    for g in tl.static_range(G):
        tl.store(parts + g, t_top[g])
        tl.store(parts + G + g, t_total[g])
    for v in tl.static_range(V):
        tl.store(parts + 2 * G + v, s_top[v])
        tl.store(parts + 2 * G + V + v, s_total[v])
        for g in tl.static_range(G):
            tl.store(parts + 2 * G + 2 * V + v * G + g, total[v * G + g])


@triton.jit
def combine(
    parts, lowest_center, student_stats, teacher_stats, loss, N, V_all, splits, teacher_scale,
    V0: tl.constexpr, V: tl.constexpr, G: tl.constexpr, FORM: tl.constexpr, BOUNDED: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """One image: its splits' sums to what the backward reads and the loss (N,).

    student_stats (3, V_all, N) and teacher_stats (2, G, N): the exponents' offset, the factor that normalises to sum 1
    (COSINE: to length 1), and for the student, summed over g != v, the pairs' cosines or dot products.
    """
    n = tl.program_id(0)
    split = tl.arange(0, SPLITS)
    there = split < splits
    parts += n.to(tl.int64) * splits * (2 * G + 2 * V + V * G) + split * (2 * G + 2 * V + V * G)
    s_max = ()
    s_sum = ()
    t_max = ()
    t_sum = ()
    cross = ()
    for g in tl.static_range(G):
        t_max = t_max + (tl.load(parts + g, mask=there, other=LOWEST),)
        t_sum = t_sum + (tl.load(parts + G + g, mask=there, other=0.0),)
    for v in tl.static_range(V):
        s_max = s_max + (tl.load(parts + 2 * G + v, mask=there, other=LOWEST),)
        s_sum = s_sum + (tl.load(parts + 2 * G + V + v, mask=there, other=0.0),)
        for g in tl.static_range(G):
            cross = cross + (tl.load(parts + 2 * G + 2 * V + v * G + g, mask=there, other=0.0),)
    s_top, s_total, t_top, t_total, total = _merge(s_max, s_sum, t_max, t_sum, cross, V0, V, G, FORM, BOUNDED)

    value = 0.0
    for g in tl.static_range(G):
        top = _bound(lowest_center, teacher_scale) if BOUNDED else t_top[g]
        tl.store(teacher_stats + g * N + n, top)
        tl.store(teacher_stats + (G + g) * N + n, 1 / tl.sqrt(t_total[g]) if FORM == COSINE else 1 / t_total[g])
    for v in tl.static_range(V):
        norm = 1 / tl.sqrt(s_total[v]) if FORM == COSINE else 1 / s_total[v]
        inner = 0.0
        for g in tl.static_range(G):
            if V0 + v != g:
                d = total[v * G + g]
                if FORM == CROSS_ENTROPY:
                    value += (tl.log2(s_total[v]) - d / t_total[g]) * LN2
                elif FORM == COSINE:
                    inner += d * norm / tl.sqrt(t_total[g])
                else:
                    inner += d * norm / t_total[g]
        tl.store(student_stats + (V0 + v) * N + n, s_top[v])
        tl.store(student_stats + (V_all + V0 + v) * N + n, norm)
        tl.store(student_stats + (2 * V_all + V0 + v) * N + n, inner)
        value += inner
    tl.store(loss + n, value)


@triton.jit
def backward(
    grad, student, teacher, center, student_stats, teacher_stats, out, N, K, V_all,
    student_n, student_v, teacher_n, teacher_g, out_n, out_v, student_scale, teacher_scale, factor,
    V0: tl.constexpr, V: tl.constexpr, G: tl.constexpr, FORM: tl.constexpr, UNIT: tl.constexpr, BLOCK: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """One image and one block of prototypes: the gradient of its logits; out may be the student's own memory.

    grad: the loss's gradient, a scalar; factor: 1 / (pairs N student_temp). K, strides and dtypes as in `forward`.
    """
    n = tl.program_id(1).to(tl.int64)
    K = K * UNIT
    LANES: tl.constexpr = BLOCK // GROUP
    k = tl.program_id(0) * BLOCK + tl.arange(0, LANES)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    student_step = tl.cast(student_v, tl.int64) * UNIT
    teacher_step = tl.cast(teacher_g, tl.int64) * UNIT
    out_step = tl.cast(out_v, tl.int64) * UNIT
    student += n * student_n * UNIT + V0 * student_step
    teacher += n * teacher_n * UNIT
    out += n * out_n * UNIT + V0 * out_step
    c = _load(center, k, K, MASKED)
    factor *= tl.load(grad)
    t_rows = _load_crops(teacher, teacher_step, G, k, K, MASKED)
    s_rows = _load_crops(student, student_step, V, k, K, MASKED)
    P = ()
    for g in tl.static_range(G):
        stats = teacher_stats + g * N + n
        a = (t_rows[g] - c) * teacher_scale - tl.load(stats)
        P = P + (tl.exp2(a) * (factor * tl.load(stats + G * N)),)
    for v in tl.static_range(V):
        stats = student_stats + (V0 + v) * N + n
        norm = tl.load(stats + V_all * N)
        e = tl.exp2(s_rows[v] * student_scale - tl.load(stats))
        wanted = tl.zeros((LANES, GROUP), tl.float32)  # sum of P over g != v
        for g in tl.static_range(G):
            if V0 + v != g:
                wanted += P[g]
        if FORM == CROSS_ENTROPY:
            gradient = e * (norm * factor * (G - 1 if V0 + v < G else G)) - wanted
        else:
            inner = factor * tl.load(stats + 2 * V_all * N)
            if FORM == COSINE:
                gradient = e * (norm * wanted - e * (norm * norm * inner))
            else:
                gradient = e * (norm * (wanted - inner))
        gradient = gradient.to(out.dtype.element_ty)
        if MASKED:
            tl.store(out + v * out_step + k, gradient, mask=k < K)
        else:
            tl.store(out + v * out_step + k, gradient)
