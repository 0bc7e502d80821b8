"""Row-sparse updates against dense optimizers and NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradkit.ops import SparseRows, lazy_rows

RNG = np.random.default_rng(0)
SIZE, WIDTH = 11, 3
TABLE = RNG.normal(size=(SIZE, WIDTH)).astype(np.float32)
WORDS = np.array([[7, 3, 7], [-1, 0, 7]])
TARGETS = RNG.normal(size=(2, 3, WIDTH)).astype(np.float32)
TOUCHED = [0, 3, 7, 10]


summed = jax.jit(SparseRows.sum_of, static_argnums=2)


def loss(vectors):
    return jnp.sum((vectors - TARGETS) ** 2)


def gradients(table):
    """Of the same loss: row-sparse, and dense from JAX."""
    rows = jax.grad(lambda vectors: loss(vectors))(table[WORDS])
    return SparseRows.sum_of(WORDS, rows, SIZE), jax.grad(lambda table: loss(table[WORDS]))(table)


def trained(optimizer, sparse, steps=3):
    """The table and state after some steps."""

    @jax.jit
    def step(table, state):
        updates, state = optimizer.update(gradients(table)[not sparse], state, table)
        return optax.apply_updates(table, updates), state

    table = jnp.asarray(TABLE)
    state = optimizer.init(table)
    for _ in range(steps):
        table, state = step(table, state)
    return table, state


def test_rows_of_one_index_are_summed_as_in_the_dense_gradient():
    sparse, dense = jax.jit(gradients)(jnp.asarray(TABLE))
    assert sparse.indices[:4].tolist() == TOUCHED
    assert len(set(sparse.indices.tolist())) == WORDS.size, "unused room has no double either"
    assert (sparse.indices[4:] >= SIZE).all()
    np.testing.assert_array_equal(sparse.rows[4:], 0)
    np.testing.assert_allclose(sparse.dense(), dense, rtol=1e-6)


def test_what_is_out_of_range_is_dropped():
    indices = np.array([5, SIZE, -SIZE - 1, -SIZE])
    dense = np.asarray(summed(indices, np.ones((4, 2)), SIZE).dense())
    np.testing.assert_array_equal(np.flatnonzero(dense[:, 0]), [0, 5])


def test_a_sum_with_a_table_is_the_dense_sum():
    table = jnp.asarray(TABLE)
    sparse, dense = jax.jit(gradients)(table)
    for total in (
        TABLE + sparse,
        table + sparse,
        sparse + table,
        optax.apply_updates(table, sparse),
    ):
        np.testing.assert_allclose(total, TABLE + dense, rtol=1e-6)


def test_numbers_and_scalars_may_be_rows():
    counts = summed(np.array([2, 0, 2]), np.ones(3), 4).dense()
    np.testing.assert_array_equal(counts, [1, 0, 2, 0])


def test_bfloat16_is_summed_in_float32():
    rows = summed(np.zeros(1000, int), np.ones((1000, 1), jnp.bfloat16), 2).rows
    assert rows.dtype == jnp.bfloat16
    assert np.asarray(rows)[0, 0] == 1000


SAME_AS_DENSE = {
    "sgd": optax.sgd(0.1),
    "schedule": optax.sgd(optax.linear_schedule(0.1, 0.0, 5)),
    "clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)),
    "adagrad": optax.adagrad(0.1),  # an accumulator that untouched rows leave as it is
}


@pytest.mark.parametrize("name", SAME_AS_DENSE)
def test_optimizers_without_decaying_memory_give_the_dense_result(name):
    ours, theirs = (
        trained(f(SAME_AS_DENSE[name]), s) for f, s in ((lazy_rows, 1), (lambda o: o, 0))
    )
    for found, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_adam_is_lazy():
    """Where every step touches the same rows, these are Adam's, and the others stand still."""
    optimizer = lazy_rows(optax.adam(0.1))
    table, (adam, _) = trained(optimizer, True)
    dense, (dense_adam, _) = trained(optax.adam(0.1), False)
    np.testing.assert_allclose(table, dense, rtol=1e-5)
    for found, expected in zip(adam, dense_adam, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)

    one = SparseRows(np.array([2]), np.ones((1, WIDTH), np.float32), SIZE)
    updates, (after, _) = jax.jit(optimizer.update)(one, (adam, optax.EmptyState()), table)
    assert int(after.count) == int(adam.count) + 1
    assert updates.indices.tolist() == [2]
    others, before, after = np.arange(SIZE) != 2, np.asarray(adam.mu), np.asarray(after.mu)
    np.testing.assert_array_equal(after[others], before[others], "no decay")
    np.testing.assert_allclose(after[2], 0.1 * np.ones(WIDTH), rtol=1e-6)


def test_weight_decay_reaches_touched_rows():
    optimizer = optax.adamw(0.1, weight_decay=0.5)
    table, _ = trained(lazy_rows(optimizer), True, steps=1)
    dense, _ = trained(optimizer, False, steps=1)
    table, dense, touched = *map(np.asarray, (table, dense)), np.isin(np.arange(SIZE), TOUCHED)
    np.testing.assert_allclose(table[touched], dense[touched], rtol=1e-5)
    np.testing.assert_array_equal(table[~touched], TABLE[~touched])


def test_dense_parameters_beside_a_table_are_as_ever():
    """With optimizers of their own, too, which mask what is not theirs."""
    labels = {"table": "rows", "w": "others"}
    plain = optax.partition({"rows": optax.adagrad(0.1), "others": optax.adam(0.1)}, labels)
    optimizer = lazy_rows(plain)
    params = {"table": jnp.asarray(TABLE), "w": jnp.ones(2)}

    @jax.jit
    def found(params):
        sparse, dense = gradients(params["table"])
        w_bar, state = jnp.array([1.0, -2.0]), plain.init(params)
        lazy, _ = optimizer.update({"table": sparse, "w": w_bar}, state, params)
        grads = {"table": dense, "w": w_bar}
        return (
            optax.apply_updates(params, lazy),
            optax.apply_updates(params, plain.update(grads, state, params)[0]),
            optimizer.update(grads, state, params),
            plain.update(grads, state, params),
        )

    params, expected, all_dense, plainly = found(params)
    for name, param in params.items():
        np.testing.assert_allclose(param, expected[name], rtol=1e-5)
    for one, other in zip(*map(jax.tree.leaves, (all_dense, plainly)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_step_touches_no_memory_of_the_size_of_the_table():
    size = 5000
    optimizer = lazy_rows(optax.adam(0.1))

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(table, state):
        rows = SparseRows.sum_of(WORDS, jax.grad(loss)(table[WORDS]), size)
        updates, state = optimizer.update(rows, state, table)
        return optax.apply_updates(table, updates), state

    table = jnp.zeros((size, WIDTH))
    memory = step.lower(table, optimizer.init(table)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < table.nbytes / 4
    assert memory.alias_size_in_bytes >= 3 * table.nbytes, "changed in place"


def test_it_runs_in_scan_and_vmap():
    optimizer = lazy_rows(optax.sgd(0.1))

    def step(table, words):
        rows = SparseRows.sum_of(words, jax.grad(jnp.sum)(table[words]), SIZE)
        return optax.apply_updates(table, optimizer.update(rows, optimizer.init(table))[0]), None

    many = jnp.asarray(WORDS)
    scanned = jax.jit(lambda: jax.lax.scan(step, jnp.zeros((SIZE, 1)), many)[0])()
    each = jax.jit(jax.vmap(lambda words: step(jnp.zeros((SIZE, 1)), words)[0]))(many)
    counts = np.bincount(WORDS.ravel() % SIZE, minlength=SIZE)[:, None]
    np.testing.assert_allclose(scanned, -0.1 * counts, rtol=1e-6)
    np.testing.assert_allclose(each.sum(0), -0.1 * counts, rtol=1e-6)


def test_errors_say_what_does_not_fit():
    with pytest.raises(ValueError, match="takes a row for each index") as error:
        SparseRows.sum_of(WORDS, np.ones((3, 2)), SIZE)
    for piece in ("rows (2, 3), followed", "got:      rows (3, 2)", "table[indices]"):
        assert piece in str(error.value)
    with pytest.raises(TypeError, match="integers as 'indices'"):
        SparseRows.sum_of([0.5], np.ones((1, 2)), SIZE)
    table = np.zeros((300, 200), np.float32)
    rows = SparseRows(np.array([1]), table[:1], 300)
    factored = lazy_rows(optax.adafactor(0.1))
    with pytest.raises(ValueError, match="do not fit the optimizer's state") as error:
        factored.update(rows, factored.init(table), table)
    assert "expected: shape (300, 200), as the SparseRows have it" in str(error.value)
    optimizer = lazy_rows(optax.sgd(0.1))
    with pytest.raises(ValueError, match="ops.lazy_rows found rows that do not fit the table"):
        optimizer.update(rows, optimizer.init(table[1:]), table[1:])
    with pytest.raises(ValueError, match="ops.SparseRows found rows that do not fit the table"):
        table[1:] + rows
