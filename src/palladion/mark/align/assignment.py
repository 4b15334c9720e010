"""Pairs the rows of a table of likeness with its columns, so that the sum is largest; NumPy alone.

Shortest augmenting paths over reduced costs (Jonker and Volgenant, Computing 38, 1987; rectangular as in Crouse, IEEE
TAES 52(4), 2016). Every row begins with its best column: among units that are ours nearly all keep it, and only for
rows that want the same one is searched.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Entries of the table that searches look at: seconds of them. Tables with a right answer need a thousandth.
WORK_MAX = 500_000_000
STEP_WORK = 10_000  # what a look at one row costs in any case, in entries
LARGEST = 1e30  # fits in float32; sums of such numbers are finite, and exact enough
BLOCK_NUMBERS = 1_000_000  # so that the table, which may take a gigabyte, is never copied as a whole


def assign(similarity: NDArray[Any], *, work_max: int = WORK_MAX) -> NDArray[np.intp]:
    """The column of each row (rows,) in a one-to-one assignment whose sum is largest; -1 for rows that get none.

    As many rows get a column as there can be pairs. Numbers that are not finite, or beyond 1e30, count for less than
    every other. The sum is the largest possible, up to rounding in float64, unless searches would look at more than
    `work_max` entries: rows that are left then get the best column that is left, one after the other.
    """
    if similarity.ndim != 2:
        raise ValueError(f"a table has two dimensions, got {similarity.ndim}")
    rows, columns = similarity.shape
    if not rows or not columns:
        return np.full(rows, -1, np.intp)
    if rows <= columns:
        return _Search(similarity).solve(work_max)
    row_of_column = _Search(similarity.T).solve(work_max)
    column_of_row = np.full(rows, -1, np.intp)
    column_of_row[row_of_column] = np.arange(columns)
    return column_of_row


class _Search:
    """An assignment of at most as many rows as columns, and the prices that prove it best so far.

    `gain[i] + price[j]` is never less than the likeness of i and j, and equal to it for pairs; columns without a row
    have the price 0.
    """

    def __init__(self, similarity: NDArray[Any]) -> None:
        self._similarity = similarity
        rows, columns = similarity.shape
        self._unlike = 0.0
        best, self._gain, self._unlike = self._best_columns()
        self._price = np.zeros(columns)
        self._column_of = np.full(rows, -1, np.intp)
        self._row_of = np.full(columns, -1, np.intp)
        # of rows that want the same column the one that is most like it comes last, and stays
        order = np.argsort(self._gain, kind="stable")
        self._row_of[best[order]] = order
        taken = np.flatnonzero(self._row_of >= 0)
        self._column_of[self._row_of[taken]] = taken

    def solve(self, work_max: int) -> NDArray[np.intp]:
        """The column of each row."""
        steps = work_max // (len(self._price) + STEP_WORK)
        for row in np.flatnonzero(self._column_of < 0):
            steps -= self._augment(int(row), steps)
            if steps <= 0:
                self._fill()
                break
        return self._column_of

    def _best_columns(self) -> tuple[NDArray[np.intp], NDArray[np.float64], float]:
        """The best column of each row, how like it is, and what counts for less than all that is finite."""
        best, gain = np.zeros(len(self._similarity), np.intp), np.zeros(len(self._similarity))
        smallest, largest = np.inf, -np.inf
        for block in self._blocks():
            numbers = self._similarity[block]
            finite = np.abs(numbers) <= LARGEST  # not nan either
            numbers = numbers if (known := bool(finite.all())) else np.where(finite, numbers, -np.inf)
            best[block] = numbers.argmax(axis=1)
            gain[block] = np.take_along_axis(numbers, best[block][:, None], axis=1)[:, 0]
            smallest = min(smallest, float(numbers.min() if known else numbers.min(initial=np.inf, where=finite)))
            largest = max(largest, float(gain[block].max()))
        unlike = 2 * smallest - largest - 1 if largest >= smallest else 0.0
        gain[np.isneginf(gain)] = unlike
        return best, gain, unlike

    def _augment(self, row: int, steps_max: int) -> int:
        """Give `row` a column, moving other rows along the cheapest way; how many rows were looked at."""
        columns = len(self._price)
        loss, before = np.full(columns, np.inf), np.full(columns, -1, np.intp)  # of the way to a column
        nearest, seen_rows, seen_columns = 0.0, [row], [-1]
        open_loss = loss.copy()  # infinite for columns that the search has been through
        at = row
        for steps in range(1, steps_max + 1):
            way = self._price - self._likeness(at)
            way += self._gain[at] + nearest
            better = np.flatnonzero((way < loss) & (open_loss == loss))
            loss[better] = open_loss[better] = way[better]
            before[better] = at
            nearest = float(open_loss.min())
            ties = np.flatnonzero(open_loss == nearest)
            column = int(ties[np.argmin(self._row_of[ties])])  # one without a row, if there is one
            open_loss[column] = np.inf
            if self._row_of[column] < 0:
                self._reprice(seen_rows, seen_columns, loss, nearest)
                self._shift(row, column, before)
                return steps
            at = int(self._row_of[column])
            seen_rows.append(at)
            seen_columns.append(column)
        return steps_max

    def _reprice(self, rows: list[int], columns: list[int], loss: NDArray[np.float64], nearest: float) -> None:
        self._gain[rows[0]] -= nearest
        change = nearest - loss[columns[1:]]
        self._gain[rows[1:]] -= change
        self._price[columns[1:]] += change

    def _shift(self, row: int, column: int, before: NDArray[np.intp]) -> None:
        while True:
            giver = int(before[column])
            self._row_of[column] = giver
            self._column_of[giver], column = column, int(self._column_of[giver])
            if giver == row:
                return

    def _fill(self) -> None:
        """Give what is left to rows that are left, one after the other."""
        free = self._row_of < 0
        for row in np.flatnonzero(self._column_of < 0):
            column = int(np.where(free, self._likeness(int(row)), -np.inf).argmax())
            self._column_of[row], self._row_of[column], free[column] = column, row, False

    def _likeness(self, row: int) -> NDArray[np.float64]:
        numbers: NDArray[np.float64] = self._similarity[row].astype(np.float64)
        numbers[~(np.abs(numbers) <= LARGEST)] = self._unlike
        return numbers

    def _blocks(self) -> list[slice]:
        rows, columns = self._similarity.shape
        step = max(1, BLOCK_NUMBERS // columns)
        return [slice(start, start + step) for start in range(0, rows, step)]
