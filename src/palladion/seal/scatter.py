"""Decrypts a sealed file straight into memory that the caller made for each of its files, all of it or nothing.

For engines that want a file each (`memfd_create`) or tensors where they will stay; the whole payload lies nowhere else.
"""

from bisect import bisect_right
from collections.abc import Sequence

from palladion.seal.manifest import Manifest, check_padding
from palladion.seal.opening import Opening
from palladion.seal.structure import Progress


def read_into(
    opening: Opening,
    manifest: Manifest,
    targets: Sequence[memoryview],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Fill `targets`, one for each of the manifest's files and of its size.

    Nothing in them may be used unless this returns: what was decrypted before an error is left to the caller to wipe.
    """
    entries = manifest.entries
    if [len(target) for target in targets] != [entry.size for entry in entries]:
        raise ValueError("the targets have other sizes than the files")
    offsets = [entry.offset for entry in entries]
    what = opening.structure.what

    def place(_index: int, position: int, plaintext: memoryview) -> None:
        check_padding(manifest, position, plaintext, what=what)
        end = position + len(plaintext)
        number = max(bisect_right(offsets, position) - 1, 0)
        while number < len(entries) and entries[number].offset < end:
            entry = entries[number]
            begin, stop = max(entry.offset, position), min(entry.end, end)
            if begin < stop:
                targets[number][begin - entry.offset : stop - entry.offset] = plaintext[
                    begin - position : stop - position
                ]
            number += 1

    opening.read_all(place, threads=threads, progress=progress)
