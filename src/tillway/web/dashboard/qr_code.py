"""An address as a QR code, drawn as the path of an SVG.

The code is that of ISO/IEC 18004: bytes, error correction of level M, versions 1 to 20.
"""

import itertools
import re
from collections.abc import Callable, Iterator

ECC_LENGTH = (10, 16, 26, 18, 24, 16, 18, 22, 22, 26, 30, 22, 22, 24, 24, 28, 28, 26, 26, 26)
"""Codewords for error correction in each block, by version (table 9)."""
BLOCKS = (1, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 8, 9, 9, 10, 10, 11, 13, 14, 16)
MASKS: tuple[Callable[[int, int], int], ...] = (
    lambda x, y: (x + y) % 2,
    lambda x, y: y % 2,
    lambda x, y: x % 3,
    lambda x, y: (x + y) % 3,
    lambda x, y: (x // 3 + y // 2) % 2,
    lambda x, y: x * y % 2 + x * y % 3,
    lambda x, y: (x * y % 2 + x * y % 3) % 2,
    lambda x, y: ((x + y) % 2 + x * y % 3) % 2,
)
"""A module is inverted where its mask is 0 (table 10)."""


def qr_path(text: str) -> tuple[str, int] | None:
    """The strokes of the dark modules, each 1 high, and the width of the code in modules; None if the text takes more
    than 666 bytes."""
    content = text.encode()
    version = next((one for one in range(1, 21) if len(content) <= _capacity(one)), None)
    if version is None:
        return None
    grid = _drawn(version, _codewords(version, content))
    strokes = (
        f"M{run.start()} {y}.5h{len(run[0])}" for y, row in enumerate(_lines(grid)) for run in re.finditer("1+", row)
    )
    return "".join(strokes), len(grid)


def _all_codewords(version: int) -> int:
    modules = (16 * version + 128) * version + 64
    if version >= 2:
        places = version // 7 + 2
        modules -= (25 * places - 10) * places - 55
    return (modules - (36 if version >= 7 else 0)) // 8


def _data_codewords(version: int) -> int:
    return _all_codewords(version) - ECC_LENGTH[version - 1] * BLOCKS[version - 1]


def _capacity(version: int) -> int:
    """How many bytes fit, beside the mode and their count."""
    return _data_codewords(version) - (2 if version < 10 else 3)


def _codewords(version: int, content: bytes) -> bytes:
    """The content in blocks, each with its error correction, all interleaved."""
    bits = f"0100{len(content):0{8 if version < 10 else 16}b}" + "".join(f"{byte:08b}" for byte in content)
    length = _data_codewords(version)
    bits = bits.ljust(min(len(bits) + 4, length * 8), "0")
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    data += bytes((0xEC, 0x11) * length)[: length - len(data)]
    count = BLOCKS[version - 1]
    short, longer = divmod(length, count)
    blocks, at = [], 0
    for number in range(count):
        end = at + short + (number >= count - longer)
        blocks.append(data[at:end])
        at = end
    corrections = [_remainder(block, ECC_LENGTH[version - 1]) for block in blocks]
    return bytes(_interleaved(blocks)) + bytes(_interleaved(corrections))


def _interleaved(blocks: list[bytes]) -> Iterator[int]:
    for place in range(max(map(len, blocks))):
        yield from (block[place] for block in blocks if place < len(block))


def _product(a: int, b: int) -> int:
    """The product in GF(256) with the polynomial 0x11D."""
    product = 0
    for place in reversed(range(8)):
        product = (product << 1) ^ (product >> 7) * 0x11D
        product ^= (b >> place & 1) * a
    return product


def _remainder(block: bytes, degree: int) -> bytes:
    """The codewords of Reed and Solomon."""
    divisor, root = bytes(degree - 1) + b"\1", 1
    for _ in range(degree):
        shifted = divisor[1:] + b"\0"
        divisor = bytes(_product(one, root) ^ next_one for one, next_one in zip(divisor, shifted, strict=True))
        root = _product(root, 2)
    rest = bytes(degree)
    for byte in block:
        factor = byte ^ rest[0]
        rest = bytes(one ^ _product(part, factor) for one, part in zip(rest[1:] + b"\0", divisor, strict=True))
    return rest


Grid = list[list[int]]


def _drawn(version: int, codewords: bytes) -> Grid:
    """The code with that of the masks which is easiest to read."""
    patterns = _patterns(version)
    size = len(patterns)
    bits = "".join(f"{byte:08b}" for byte in codewords)
    best: tuple[int, Grid] | None = None
    for number, mask in enumerate(MASKS):
        grid = [[max(module, 0) for module in row] for row in patterns]
        for place, (x, y) in enumerate(_free(patterns)):
            dark = place < len(bits) and bits[place] == "1"
            grid[y][x] = dark ^ (mask(x, y) == 0)
        for place, points in enumerate(_format_places(size)):
            for x, y in points:
                grid[y][x] = _format_bits(number) >> place & 1
        grid[size - 8][8] = 1
        penalty = _penalty(grid)
        if best is None or penalty < best[0]:
            best = penalty, grid
    assert best is not None
    return best[1]


def _free(patterns: Grid) -> Iterator[tuple[int, int]]:
    """The places of data, two columns at a time from the right, up and down by turns."""
    size = len(patterns)
    for right in (*range(size - 1, 6, -2), *range(5, 0, -2)):
        upward = (right + 1) & 2 == 0
        for step in range(size):
            y = size - 1 - step if upward else step
            yield from ((x, y) for x in (right, right - 1) if patterns[y][x] < 0)


def _patterns(version: int) -> Grid:
    """The patterns of every code of a version; a module for data is -1."""
    size = version * 4 + 17
    grid = [[-1] * size for _ in range(size)]
    for at in range(size):
        grid[6][at] = grid[at][6] = 1 - at % 2
    for left, top in ((0, 0), (size - 7, 0), (0, size - 7)):
        for y in range(max(top - 1, 0), min(top + 8, size)):
            for x in range(max(left - 1, 0), min(left + 8, size)):
                grid[y][x] = int(max(abs(x - left - 3), abs(y - top - 3)) not in (2, 4))
    for x, y in _alignments(version, size):
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                grid[y + dy][x + dx] = int(max(abs(dx), abs(dy)) != 1)
    for points in _format_places(size):
        for x, y in points:
            grid[y][x] = 0
    grid[size - 8][8] = 1
    if version >= 7:
        bits = _with_remainder(version, 12, 0x1F25)
        for place in range(18):
            along, across = size - 11 + place % 3, place // 3
            grid[across][along] = grid[along][across] = bits >> place & 1
    return grid


def _alignments(version: int, size: int) -> Iterator[tuple[int, int]]:
    """The middles of the alignment patterns (annex E)."""
    if version == 1:
        return
    count = version // 7 + 2
    step = (version * 8 + count * 3 + 5) // (count * 4 - 4) * 2
    places = [6, *(size - 7 - number * step for number in reversed(range(count - 1)))]
    corners = {(6, 6), (6, size - 7), (size - 7, 6)}
    yield from ((x, y) for x in places for y in places if (x, y) not in corners)


def _format_places(size: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The two places of each bit of the format, the lowest first."""
    first = [*((8, y) for y in range(6)), (8, 7), (8, 8), (7, 8), *((14 - place, 8) for place in range(9, 15))]
    second = [*((size - 1 - place, 8) for place in range(8)), *((8, size - 15 + place) for place in range(8, 15))]
    return list(zip(first, second, strict=True))


def _format_bits(mask: int) -> int:
    """Level M and the mask."""
    return _with_remainder(mask, 10, 0x537) ^ 0x5412


def _with_remainder(value: int, length: int, polynomial: int) -> int:
    rest = value
    for _ in range(length):
        rest = (rest << 1) ^ (rest >> (length - 1)) * polynomial
    return value << length | rest


def _lines(grid: Grid) -> list[str]:
    return ["".join(map(str, map(int, row))) for row in grid]


def _penalty(grid: Grid) -> int:
    """How hard the code is to read (table 11): long runs, blocks, false finders, and an uneven share of dark."""
    rows = _lines(grid)
    columns = ["".join(column) for column in zip(*rows, strict=True)]
    runs = sum(len(run[0]) - 2 for line in rows + columns for run in re.finditer("0{5,}|1{5,}", line))
    finders = sum(len(re.findall("(?=10111010000|00001011101)", line)) for line in rows + columns)
    blocks = sum(
        upper[x : x + 2] == lower[x : x + 2] in ("00", "11")
        for upper, lower in itertools.pairwise(rows)
        for x in range(len(upper) - 1)
    )
    dark = sum(row.count("1") for row in rows) / len(rows) ** 2
    return runs + 3 * blocks + 40 * finders + 10 * int(abs(dark - 0.5) * 20)
