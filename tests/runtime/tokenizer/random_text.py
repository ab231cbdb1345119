"""Random strings that are hard to tokenize: mixed scripts, marks, emoji, controls, code."""

import random

# Code point ranges, with letters and marks newer than most Unicode tables among them.
RANGES = {
    "ascii": (0x20, 0x7E), "latin1": (0xA0, 0xFF), "latin": (0x100, 0x24F), "greek": (0x370, 0x3FF),
    "cyrillic": (0x400, 0x52F), "hebrew": (0x590, 0x5F4), "arabic": (0x600, 0x6FF),
    "arabic_new": (0x870, 0x8FF), "devanagari": (0x900, 0x97F), "bengali": (0x980, 0x9FE),
    "tamil": (0xB80, 0xBFA), "kannada": (0xC80, 0xCF3), "thai": (0xE01, 0xE5B),
    "tibetan": (0xF00, 0xFDA), "jamo": (0x1100, 0x11FF), "latin_extra": (0x1E00, 0x1EFF),
    "greek_extra": (0x1F00, 0x1FFE), "punctuation": (0x2000, 0x206F), "letterlike": (0x2100, 0x218B),
    "kana": (0x3041, 0x30FF), "cjk": (0x4E00, 0x9FFF), "hangul": (0xAC00, 0xD7A3),
    "compatibility": (0xF900, 0xFAD9), "halfwidth": (0xFF01, 0xFFEE), "marks": (0x300, 0x36F),
    "marks_new": (0x1AB0, 0x1AFF), "marks_extra": (0x1DC0, 0x1DFF), "dives": (0x11900, 0x11959),
    "math": (0x1D400, 0x1D7FF), "toto": (0x1E290, 0x1E2AE), "nag": (0x1E4D0, 0x1E4F9),
    "emoji": (0x1F300, 0x1FAFF), "cjk_new": (0x2EBF0, 0x2EE5D), "garay": (0x10D40, 0x10D8F),
    "kirat": (0x16D40, 0x16D79), "tolong_siki": (0x11DB0, 0x11DE9), "private": (0xE000, 0xF8FF),
    "anything": (0x1, 0x10FFFF),
}
DIGITS = "0123456789²³½Ⅷ①٣४߄０𝟘"
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", " \n", "\n ", "\u00a0", "\u3000", "\u2028",
          "\u0085", "\u1680", "\u180e", "\u200b", "\x0b", "\x0c", "    \n    ", " \t "]
CONTRACTIONS = ["'s", "'S", "'t", "'RE", "'ve", "'vE", "'m", "'LL", "'ll", "'d", "'ſ", "'l", "'r", "’s",
                "''s", "'s's"]
CODE = ["for (int i = 0; i < 10; ++i) {\n", "\tdef f(x):\n        return x**2\n", "{\"a\": [1, 2.5e-3]}",
        "https://example.org/a?b=c&d=%20", "<div class='x'>", "</div>\n\n\n", "x_1+=y->z;", "#include <a>\n",
        "/* */", "//\r\n", "$$\\frac{a}{b}$$", "SELECT * FROM t;", "0x1F_ff", "a.b.c()", "!!!", "...?!\n\n"]
EMOJI = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "1️⃣", "🫠", "❤️", "\u200d", "\ufe0f", "😀" * 3]
MARKED = ["e\u0301", "A\u030a", "o\u0323\u0302", "\u0301\u0316", "a\u0345\u0300\u0316", "क\u093c", "\u1100\u1161\u11a8",
          "\u0958", "\u212b", "\u2126", "\ufb1d", "q\u0307\u0323", "\u0344", "\U00011935\U00011930", "a\u0300\u1dfa\u0316",
          "\u0f71\u0f72\u0f74", "ſ\u0323\u0307"]
CONTROLS = [chr(c) for c in (*range(1, 32), 127, 128, 0x9F, 0xAD, 0xFEFF, 0xFFFD, 0xFFFF, 0)]
WORDS = ("the of and model token Straße naïve Привет мир γλώσσα 你好 世界 日本語 テスト 한국어 שלום سلام नमस्ते ไทย "
         "HTTPServer camelCase snake_case don't we'll IT'S a I").split()


def character(rng, low, high):
    while True:
        code_point = rng.randint(low, high)
        if not 0xD800 <= code_point < 0xE000:
            return chr(code_point)


def piece(rng, special_texts):
    kind = rng.randrange(10)
    if kind == 0:
        low, high = RANGES[rng.choice(list(RANGES))]
        return "".join(character(rng, low, high) for _ in range(rng.randint(1, 8)))
    if kind == 1:
        return "".join(rng.choice(DIGITS) for _ in range(rng.randint(1, 6)))
    if kind == 9:
        text = rng.choice(special_texts) if special_texts else "<"
        return text if rng.random() < 0.7 else text[:rng.randint(1, len(text))]
    lists = {2: SPACES, 3: CONTRACTIONS, 4: CODE, 5: EMOJI, 6: MARKED, 7: CONTROLS, 8: WORDS}
    return rng.choice(lists[kind]) * (rng.randint(2, 5) if rng.random() < 0.1 else 1)


def long_word(rng):
    """A word longer than what a tokenizer merges in its short path."""
    letters = rng.choice(["Aaeinrst", "A", "世界你好", "=-#*", "\u0301\u0316e"])
    return "".join(rng.choice(letters) for _ in range(rng.randint(400, 3000)))


def strings(seed, count, special_texts):
    """`count` strings of 0 to 24 pieces, some parted by spaces, and a few with a long word; the same
    for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        separator = rng.choice(["", "", " "])
        pieces = [piece(rng, special_texts) for _ in range(rng.randint(0, 24))]
        if rng.random() < 0.005:
            pieces.insert(rng.randint(0, len(pieces)), long_word(rng))
        yield separator.join(pieces)
