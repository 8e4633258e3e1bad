"""The words that the word families ask about: everyday English, each word in one place."""

KINDS = {  # 12 x 16, for counting letters, kinds of things, and the odd one out
    "animal": "dog cat horse cow sheep goat lion tiger bear wolf rabbit mouse monkey camel donkey zebra",
    "bird": "eagle owl sparrow crow duck goose swan pigeon "
    "parrot robin hawk penguin raven falcon ostrich heron",
    "fruit": "apple pear plum grape lemon cherry peach banana "
    "melon mango fig apricot papaya coconut lime guava",
    "vegetable": "carrot potato onion cabbage spinach lettuce celery garlic "
    "pea radish turnip leek broccoli cucumber pumpkin beet",
    "color": "red blue green yellow purple brown black white "
    "gray pink violet crimson scarlet beige maroon cyan",
    "metal": "iron gold silver copper zinc lead tin nickel "
    "steel aluminum platinum titanium brass bronze mercury chromium",
    "tool": "hammer saw drill wrench pliers shovel rake chisel "
    "screwdriver axe ladder spade hoe file clamp mallet",
    "vehicle": "car bus truck train bicycle boat ship airplane "
    "tractor taxi tram van scooter helicopter canoe wagon",
    "sport": "tennis soccer hockey golf rugby baseball basketball boxing "
    "swimming cricket volleyball skiing badminton wrestling surfing bowling",
    "instrument": "piano violin guitar flute drum trumpet harp cello "
    "clarinet trombone banjo oboe organ accordion saxophone tuba",
    "profession": "doctor teacher lawyer farmer nurse baker plumber carpenter "
    "engineer pilot dentist butcher tailor chef judge librarian",
    "garment": "shirt coat hat sock shoe glove scarf jacket dress skirt sweater trousers boot belt vest tie",
}
WORDS = tuple(word for words in KINDS.values() for word in words.split())

OPPOSITES = tuple(  # asked in both directions
    tuple(pair.split("/"))
    for pair in """
    hot/cold big/small up/down left/right good/bad day/night open/closed full/empty fast/slow high/low
    old/new rich/poor happy/sad hard/soft wet/dry strong/weak long/short wide/narrow thick/thin
    heavy/light early/late clean/dirty true/false near/far inside/outside above/below before/after
    buy/sell give/take push/pull win/lose love/hate live/die start/stop begin/end come/go laugh/cry
    arrive/depart accept/reject agree/disagree allow/forbid attack/defend cheap/expensive create/destroy
    deep/shallow easy/difficult east/west north/south enemy/friend enter/exit succeed/fail female/male
    first/last float/sink remember/forget front/back guilty/innocent increase/decrease loud/quiet
    major/minor maximum/minimum more/less odd/even past/future peace/war permanent/temporary polite/rude
    positive/negative private/public raise/lower rough/smooth safe/dangerous same/different sharp/blunt
    simple/complex sweet/sour summer/winter tight/loose top/bottom urban/rural victory/defeat
    visible/invisible ancient/modern asleep/awake beautiful/ugly alive/dead divide/multiply
    expand/contract export/import add/subtract humble/proud internal/external legal/illegal
    natural/artificial patient/impatient possible/impossible vertical/horizontal wise/foolish yes/no
    """.split()
)

PLURALS = tuple(
    tuple(pair.split("/"))
    for pair in """
    man/men woman/women child/children foot/feet tooth/teeth goose/geese mouse/mice ox/oxen sheep/sheep
    deer/deer fish/fish leaf/leaves knife/knives wife/wives life/lives wolf/wolves shelf/shelves
    half/halves calf/calves loaf/loaves thief/thieves city/cities baby/babies story/stories party/parties
    country/countries family/families lady/ladies army/armies berry/berries cherry/cherries puppy/puppies
    box/boxes fox/foxes bus/buses class/classes glass/glasses dress/dresses church/churches watch/watches
    brush/brushes dish/dishes wish/wishes bench/benches peach/peaches beach/beaches potato/potatoes
    tomato/tomatoes hero/heroes echo/echoes piano/pianos photo/photos roof/roofs chief/chiefs day/days
    key/keys boy/boys toy/toys monkey/monkeys valley/valleys cat/cats dog/dogs house/houses horse/horses
    tree/trees book/books chair/chairs table/tables window/windows door/doors river/rivers
    mountain/mountains flower/flowers apple/apples orange/oranges bottle/bottles letter/letters
    number/numbers teacher/teachers farmer/farmers doctor/doctors village/villages bridge/bridges
    garden/gardens island/islands ship/ships train/trains bird/birds cow/cows egg/eggs cup/cups hat/hats
    coat/coats shoe/shoes crisis/crises analysis/analyses basis/bases cactus/cacti fungus/fungi
    nucleus/nuclei stimulus/stimuli phenomenon/phenomena criterion/criteria bacterium/bacteria
    person/people louse/lice dwarf/dwarves series/series species/species penny/pennies pony/ponies
    fly/flies sky/skies lily/lilies tax/taxes kiss/kisses match/matches branch/branches
    """.split()
)

PAST = tuple(
    tuple(pair.split("/"))
    for pair in """
    go/went eat/ate run/ran see/saw take/took give/gave come/came write/wrote drive/drove ride/rode
    rise/rose speak/spoke break/broke choose/chose freeze/froze steal/stole wake/woke wear/wore tear/tore
    swear/swore begin/began drink/drank ring/rang sing/sang sink/sank swim/swam fly/flew grow/grew
    know/knew throw/threw blow/blew draw/drew fall/fell feel/felt keep/kept sleep/slept sweep/swept
    leave/left mean/meant meet/met feed/fed lead/led buy/bought bring/brought think/thought fight/fought
    seek/sought catch/caught teach/taught sell/sold tell/told find/found bind/bound grind/ground hold/held
    stand/stood understand/understood lose/lost shoot/shot sit/sat win/won dig/dug stick/stuck
    strike/struck swing/swung hang/hung sting/stung spin/spun make/made have/had do/did say/said pay/paid
    lay/laid hear/heard build/built send/sent spend/spent lend/lent bend/bent cut/cut put/put shut/shut
    hit/hit hurt/hurt let/let set/set cost/cost cast/cast split/split spread/spread burst/burst bite/bit
    hide/hid slide/slid shake/shook forget/forgot get/got become/became forgive/forgave flee/fled
    creep/crept deal/dealt walk/walked play/played stop/stopped carry/carried try/tried plan/planned
    hope/hoped study/studied cry/cried drop/dropped admit/admitted visit/visited fix/fixed jump/jumped
    love/loved marry/married open/opened pull/pulled rob/robbed stay/stayed tie/tied worry/worried
    yell/yelled hurry/hurried clap/clapped call/called help/helped look/looked talk/talked wait/waited
    want/wanted live/lived
    """.split()
)

DAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
MONTHS = tuple(
    "January February March April May June July August September October November December".split()
)
