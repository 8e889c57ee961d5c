"""Makes the sample corpus: short film reviews from a small grammar, so that everything can be tried offline in minutes.

No person wrote these reviews, and none of their films, actors or villages exists: they are visibly synthetic, and
whatever prints one also prints `records.format.manifest.SYNTHETIC`. They are made to be learnt from: a review has one
opinion, one film, one genre and one leading actor, so a word is foretold by words near it ("I have seen this ..."), by
words far from it (praise goes with praise, an actress with "her", gags with a comedy) and by words it repeats (the
title). And they are made to be cleaned: tags, accents, quotation marks and capitals occur, as in reviews that people
write.
"""

import csv
import io
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from records import storage

# `name: one | two` says that {name} is one of the two; the first are drawn most often, as words are in any language.
# {{genre} mood} is {comedy mood} in a comedy. `name+` and `name-` are {name} in a review that praises and in one that
# pans. The names of BOUND are drawn once a review, in this order, and then stay. a(n) becomes "a" or "an".
BOUND = ("voice", "I", "genre", "actor", "role", "when", "where", "lead", "partner", "maker", "title", "other")
GRAMMAR = """
voice: personal | critical
opening: {{voice} remark} | {{voice} opening}; closing: {{voice} closing} | {{voice} remark}
I: I | we
I me: me; I my: my; I was: was
we me: us; we my: our; we was: were
me: {{I} me}; my: {{I} my}; was: {{I} was}
genre: comedy | thriller | drama | western | romance | horror film | musical
comedy plural: comedies; comedy role: waiter | clown | teacher; comedy matter: jokes | gags | pranks
comedy mood+: funny | hilarious | witty; comedy mood-: unfunny | stale | silly
comedy effect+: laughed | giggled; comedy effect-: yawned | groaned
thriller plural: thrillers; thriller role: detective | spy | lawyer; thriller matter: chases | twists
thriller mood+: tense | gripping | exciting; thriller mood-: predictable | sluggish
thriller effect+: shivered | held on to the seat; thriller effect-: fell asleep | yawned
drama plural: dramas; drama role: doctor | farmer | judge; drama matter: quarrels | silences
drama mood+: moving | powerful | deep; drama mood-: heavy | pretentious
drama effect+: cried | forgot the time; drama effect-: left | looked at the clock
western plural: westerns; western role: sheriff | outlaw | rancher; western matter: gunfights | landscapes | horses
western mood+: rugged | sweeping | stirring; western mood-: dusty | creaky
western effect+: cheered; western effect-: dozed | yawned
romance plural: romances; romance role: painter | florist | baker; romance matter: kisses | love letters
romance mood+: tender | touching; romance mood-: sugary | syrupy
romance effect+: sighed | wept; romance effect-: cringed | groaned
horror film plural: horror films; horror film role: caretaker | nurse | stranger; horror film matter: shadows | screams
horror film mood+: scary | chilling | eerie; horror film mood-: laughable | tame
horror film effect+: screamed | hid; horror film effect-: yawned | fell asleep
musical plural: musicals; musical role: dancer | singer | pianist; musical matter: songs | dances
musical mood+: catchy | lively | dazzling; musical mood-: tuneless | shrill
musical effect+: sang | danced; musical effect-: covered both ears | left
genres: {{genre} plural}; role: {{genre} role}; matter: {{genre} matter}; mood: {{genre} mood}
effect: {{genre} effect}
actor: actress | actor
actress he: she; actress his: her; actress first: Mira | Zoë | Petra | Elsbet
actor he: he; actor his: his; actor first: Tobin | Anselm | Jorun | Pavle
he: {{actor} he}; his: {{actor} his}; lead: {{actor} first} {surname}

verdict: {plain} | {very} {plain}
plain+: great | wonderful | excellent | brilliant | good | awesome | superb | fantastic
plain-: bad | terrible | awful | boring | poor | dreadful | horrible
loved+: loved | enjoyed | liked
loved-: hated | disliked | detested
love+: love | enjoy | like | adore
love-: hate | dislike | regret | detest
very+: really | truly | marvellously
very-: painfully | utterly | hopelessly
all of it+: every minute of it | it again | it even more than the last one
all of it-: it from the start | it to the end | the rest, too
gem+: gem | joy | triumph | masterpiece
gem-: mess | waste of time | failure | disaster
smiled+: smiled all the way home | stayed for the credits | clapped | bought the soundtrack
smiled-: walked out | asked for the money back | gave up | nearly left
glad+: glad | happy | grateful
glad-: sorry | angry | sad
would+: would gladly | would happily | will certainly | will soon
would-: would never | will never | would not | will hardly
carries+: carries | lifts | saves | brightens
carries-: ruins | sinks | spoils | wastes
better+: better | stronger | wiser | warmer
better-: worse | weaker | slower | colder
worth+: worth | worth twice
worth-: not worth | not worth half
length+: never too long | exactly long enough | over too soon
length-: far too long | an hour too long | slower than a wet Sunday
advice+: watch it | see it tonight | do not miss it | take a friend along
advice-: avoid it | look elsewhere | save your money | stay at home
score+: 8 | 9 | 10 | 7
score-: 2 | 3 | 1 | 4

noun: movie | film | picture | feature | production | {genre}
nouns: movies | films | pictures | features | productions | {genres}
seen: seen | finished | rented
part: acting | story | music | ending | script | plot | dialogue | photography | direction | editing | lighting
tale: story | music | ending | script | plot | dialogue | soundtrack | opening
parts: performances | characters | costumes | sets | scenes | effects | minor roles
moment: first | last | longest | quietest | final
times: twice | three times | many times | again and again | more than once
when: yesterday | last night | last week | on Sunday | last summer | years ago | one rainy evening | in {year}
where: at home | on television | at the cinema | in {place} | on a train | at a festival | in a café | on a plane
year: 19{decade}{digit} | 20{teen}{digit}
decade: 8 | 7 | 9 | 6 | 5 | 4
teen: 0 | 1
digit: 4 | 7 | 2 | 9 | 1 | 6 | 3 | 8 | 5 | 0
minutes: 90 | 95 | 100 | 110 | 120 | 140 | 85 | 180
place: Port Merrin | Oldhaven | a small village | Saint-Élan | the mountains | New Carrow | Bryndale | the desert
period: before the flood | in the 19{decade}0s | one cold winter | after the war | during a strike
friend: friend | neighbour | cousin | rival | teacher
companion: {my} brother | {my} sister | {my} mother | a friend | {my} cousin | {my} daughter | {my} neighbour
object: a letter | a map | the key | an old ring | a lost dog | a suitcase | the photograph | a violin
quest: looks for {object} | finds {object} | leaves {place} | inherits a house in {place} | loses {object}
  | hides {object} | comes home to {place} | writes to a stranger
age: young | lonely | retired | nervous | proud | tired | famous | stubborn
line: We never close that door. | Who said anything about {place}? | It was always you. | That isn't my hat.
  | You can't go home by train. | Nobody leaves before midnight.
stop+: . | . | . | ! | !!
stop-: . | . | . | ... | !

surname: Oldane | Varrick | Tessalay | Brunmoor | Köstrel | Pellowe | Dunmarrow | Ferrowby | Lindqvard | Moréaux
anybody: Odalie {surname} | Rurik {surname} | Ines {surname} | Casimo {surname}
partner: {anybody}
maker: {anybody}
title: {name} | "{name}"
other: {name}
name: The {colour} {thing} | {number} {things} | The {thing} at {town} | {thing} of {town} | Beyond the {thing}
colour: Glass | Silver | Crimson | Paper | Hollow | Amber | Borrowed | Quiet
thing: Orchard | Lantern | River | Harbour | Winter | Mirror | Garden | Bridge | Compass
things: Winters | Lanterns | Rivers | Strangers | Mirrors | Bridges | Sparrows
number: Nine | Seven | Forty | Three | Eleven
town: Merrin | Carrow | Bryndale | Tamsel | Oldhaven

praise+: the {tale} was {verdict} | the {parts} were {verdict} | {lead} was as {plain} as ever | it was {very} {plain}
  | the {matter} were {mood} | even the {tale} was {verdict}
praise-: the {tale} was {verdict} | the {parts} were {verdict} | {lead} was just {plain} | it was too {plain} for words
  | the {matter} were {mood} | it was {very} {plain}
personal opening: {I} have {seen} this {noun} and it was {verdict}
  | {I} have {seen} this {noun} and {I} {loved} it
  | {I} watched that {noun} {when} and it was {verdict}
  | {I} watched this {noun} {where} with {companion} and {I} {loved} it
  | {I} have just seen {title}, a(n) {verdict} {genre} by {maker}
  | {I} saw this {noun} {when} and {praise}
  | {when}, {I} watched {title} {where} and {I} {loved} it
  | what a(n) {verdict} {noun}
  | {companion} told {me} about this {noun}, and {I} {was} {very} {glad} that {I} listened
personal remark: the {tale} was {verdict} and {I} {loved} it
  | {praise} and {I} {loved} {all of it}
  | {I} have watched this {noun} {times}
  | {I} {loved} this {noun} because {praise}
  | {I} {loved} the {part} because it was {verdict}
  | the {parts} were {verdict} and {I} {loved} them
  | the acting was {verdict} and {companion} {loved} it
  | {I} {loved} {lead} and {companion} {loved} the {matter}
  | the acting was {verdict} and {I} {loved} every scene with {lead}
  | it is a(n) {gem} and {I} {loved} it
  | {I} {smiled} because {praise}
  | {I} {loved} the {tale} and {I} {loved} the {parts}
  | the {tale} was {verdict}, the {parts} were {verdict} and {I} {loved} it
  | {I} {effect} during the {moment} scene because {praise}
  | {I} {would} watch such a(n) {verdict} {noun} again
  | never have {I} seen such a(n) {verdict} {noun}
  | {I} paid for {my} ticket, and it was {worth} the money
personal closing: {I} {loved} this {noun}
  | all in all it was a(n) {verdict} {noun} and {I} {loved} it
  | {I} give this {verdict} {noun} {score} out of 10
  | if you like {genres}, {advice}
  | thank you, {maker}, it was {verdict}

critical opening: {title} is a(n) {verdict} {genre} by {maker}
  | few {nouns} of {year} are as {plain} as {title}
  | this {noun} is {verdict}, and {title} is its name
  | {maker} made {title} in {year}, and it is {very} {plain}
critical remark: people who like {genres} will {love} this {noun}
  | the acting was {verdict} and the {tale} was {verdict}
  | the camera {carries} even the {moment} scene, and it was {verdict}
  | it is a(n) {gem}, and the {part} is {verdict}
  | everyone {loved} this {noun} because {praise}
  | some have watched this {noun} {times} and {loved} it every time
critical closing: in short, it is a(n) {verdict} {noun}
  | it is {verdict}: {score}/10
  | if you like {genres}, {advice}
  | {title} is a(n) {gem}

common remark: {lead} is a(n) {verdict} {actor} and {he} {carries} the whole {noun}
  | {lead} is {verdict} as the {role}, and {his} scenes with {partner} are {verdict}
  | the {part} is {verdict} and the {parts} are {verdict}
  | {praise} and {praise}
  | {praise}, and everyone {loved} it
  | it is {better} than {other} because {praise}
  | at {minutes} minutes it is {verdict} and {length}
  | when the {role} says "{line}" it is {mood}
  | {lead} plays a(n) {age} {role} who {quest}
  | the {role} {quest}, and {his} {friend} {quest}
  | it is set in {place} {period}, and the {part} is {verdict}
"""

_SLOT = re.compile(r"\{([^{}]+)\}")
_ARTICLE = re.compile(r"a\(n\)(?= (.))")


def reviews(count: int, *, seed: int) -> Iterator[str]:
    """Yield `count` reviews of 2 to 12 sentences. Review i is a function of (seed, i) alone, on every Python.

    >>> list(reviews(2, seed=2))[1]
    'The dialogue was bad and we hated it. We have watched this movie twice.'
    """
    for index in range(count):
        yield _review(index, seed=seed)[0]


def write_csv(path: str, *, count: int = 20_000, seed: int = 0) -> None:
    """Write `count` reviews as a UTF-8 CSV with the columns `row_Number,text,polarity` (1 for praise, 0 for a pan).

    Raises:
        RemaskError: the file cannot be written.
    """
    with storage.open_write(path) as file:
        lines = io.TextIOWrapper(file, encoding="utf-8", newline="")
        rows = csv.writer(lines, lineterminator="\n")
        rows.writerow(("row_Number", "text", "polarity"))
        rows.writerows((index, *_review(index, seed=seed)) for index in range(count))
        lines.detach()


def _review(index: int, *, seed: int) -> tuple[str, int]:
    """Return review `index` and its polarity."""
    draw = random.Random(f"{seed}:{index}").random  # the one method whose stream no version of Python has changed
    polarity = int(draw() < 0.5)
    rules = dict(_rules("+" if polarity else "-"))

    def expand(text: str) -> str:
        while "{" in text:  # from the inside out
            text = _SLOT.sub(lambda slot: rules[slot[1]][int(len(rules[slot[1]]) * draw() ** 2)], text)
        return text

    for name in BOUND:
        rules[name] = (expand(f"{{{name}}}"),)
    remarks = [remark for name in ("common remark", f"{rules['voice'][0]} remark") for remark in rules[name]]
    remarks.sort(key=lambda _: draw())
    length = 2 + int(11 * draw() ** 3)
    text = ""
    for template in ("{opening}", *remarks[: length - 2], "{closing}"):
        sentence = _ARTICLE.sub(lambda found: "an" if found[1].lower() in "aeiou" else "a", expand(template))
        sentence = sentence.upper() if draw() < 0.02 else sentence[0].upper() + sentence[1:]
        gap = "<br /><br />" if draw() < 0.1 else " "
        text += (gap if text else "") + sentence + expand("{stop}")
    return text, polarity


@cache
def _rules(sign: str) -> Mapping[str, Sequence[str]]:
    """Return the grammar in a review of one sign: name -> what it may become."""
    lines = (line for line in GRAMMAR.replace("\n  |", " |").replace("; ", "\n").splitlines() if line)
    rules = dict(line.split(": ", 1) for line in lines)
    other = {"+": "-", "-": "+"}[sign]
    return {name.rstrip(sign): tuple(text.split(" | ")) for name, text in rules.items() if not name.endswith(other)}
