"""Synthetic forum comments with known abuse, and a separate labelled set to learn a toxicity scorer from.

Everything is invented and put together from the tables below: a comment is a frame (an order of roles such as
opening, story, question, abuse), each role is a template, and each ``{slot}`` is drawn from the words of the family
(cooking, cycling, ...) or from those that all families share. ``thing`` and ``name`` are drawn once a comment, the
rest anew, and no slot draws the same option twice running. Comment i is a function of (seed, i) and the share alone.

The abuse is school-yard English at the level of sentences. ``documents`` states where it is; ``find_abuse`` finds it
by the corpus' lexicon and agrees with that truth in every sentence. ``labelled`` draws from other families, other
templates and another lexicon, so that a classifier learned from it is a real and imperfect judge of the corpus. The
words of ``SHARED_WORDS`` (names, times, quantities, people, adjectives for things) are common to both.

Limits. Real abuse is nothing like this: no irony, no hints, no odd spellings, nobody outside the thread. Every
abusive sentence holds a word of a short list, so a lexicon is a perfect judge here and nowhere else. Both lexicons
build their insults in one way (-head, -wit, -brain, -skull), and the tables were tuned until a classifier of word and
character n-grams carried that over from one to the other: a figure of the scorer on this corpus says nothing about
other text. A sentence is grammatical more often than sensible, and a reply shares only family, thing and name with
what it answers.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from freshstart.corpora import CorpusSettings, Document

# Word tables: "slot: option, option; slot: option, option", a list goes on on indented lines.
SHARED_WORDS = """
name: Anna, Ben, Carla, Dev, Elin, Farid, Grace, Hugo, Ines, Jonas, Kim, Lena, Marco, Nadia, Oscar, Petra, Ravi,
    Sofia, Tom, Uma, Victor, Wanda, Yusuf, Zoe, Alex, Billie, Chris, Dana, Robin, Sam, Maya, Felix, Ruth, Henry, Aisha
number: two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, fifteen, twenty, thirty
figure: 3, 4, 6, 7, 8, 11, 14, 15, 18, 25, 30, 45, 60, 75, 80, 90
span: {number} minutes, {number} hours, {number} days, {number} weeks, {number} months, {number} years
ago: {number} days ago, {number} weeks ago, {number} months ago, {number} years ago
when: {ago}, {ago}, last {weekday}, last {season}, on {weekday} {daytime}, back in {month}
weekday: Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday
season: spring, summer, autumn, winter; daytime: morning, evening, afternoon, night
month: January, March, April, May, June, August, September, October, December
kin: my sister, my brother, my cousin, my uncle, my aunt, my father, my mother, my grandmother, our neighbour,
    a friend of mine, my flatmate, a colleague, my wife, my husband, a stranger, my boss, half the family
person: {kin}, {who}
degree: really, quite, rather, very, surprisingly, pretty, truly, fairly, oddly, extremely
nice: wonderful, excellent, decent, lovely, brilliant, practical, splendid, handy, great, perfect, modest, beautiful
poor: worthless, awful, stupid, terrible, ridiculous, pointless, overpriced, dreadful, silly, annoying, horrible
broke: snapped in half, went missing, fell on my foot, gave up, cost me {figure} euros, never worked,
    was the wrong size, arrived late, had to be returned, got wet, was stolen, ended up in the bin
"""

FAMILY_WORDS = {
    "cooking": """
topic: baking bread, cooking soup, frying fish, making pasta, slow cooking, roasting vegetables
thing: bread loaf, onion soup, apple pie, bean stew, rice dish, fish pie, lemon cake, tomato sauce, omelette, curry
part: crust, filling, dough, sauce, pastry, stock, topping, batter, gravy, marinade, frosting, stuffing
gear: cast iron pan, wooden spoon, oven timer, bread tin, kitchen scale, blender, rolling pin, egg whisk, apron
verbs: stir stirred, taste tasted, chill chilled, warm warmed, weigh weighed, mix mixed, cover covered, salt salted
good: crisp, tender, golden, light, rich, fresh, juicy; bad: soggy, bland, burnt, salty, greasy, lumpy, sour
fault: stuck to the tin, burned at the edges, came out flat, tasted of nothing, fell apart on the plate, turned grey
where: in my small kitchen, at the farmers market, in the school canteen, at the village bakery, at the harvest dinner
who: the baker, the chef, the cook on the radio, the waiter; basics: boiling water, buttering toast, cold cereal""",
    "cycling": """
topic: road cycling, bike repair, riding to work, mountain biking, long distance riding, winter cycling
thing: touring bike, road bike, folding bike, gravel bike, cargo bike, racing bike, city bike, steel tandem
part: chain, saddle, front brake, rear wheel, inner tube, left pedal, handlebar, gear lever, tyre, headset, spoke
gear: hand pump, chain tool, headlight, puncture kit, helmet, bike lock, rain jacket, bottle cage, mudguard
verbs: adjust adjusted, clean cleaned, oil oiled, replace replaced, tighten tightened, inspect inspected, swap swapped
good: smooth, quiet, sturdy, responsive, quick, comfortable; bad: rusty, loose, noisy, bent, wobbly, slack
fault: snapped on the hill, squeaked all the way home, came off in traffic, slipped under load, rattled like a tin
where: on the canal path, at the repair stand, in the bike shop, on the long climb, behind the station, on wet gravel
who: the mechanic, the courier, my riding partner; basics: training wheels, pushing a scooter, riding a tricycle""",
    "games": """
topic: role playing games, online racing, strategy games, puzzle games, building castles, speed running
thing: dungeon map, space shooter, farming game, castle level, racing game, card game, pirate quest, boss fight
part: combat, tutorial, menu, inventory, save system, ending, camera, skill tree, skull cave, brain puzzle, weapon
gear: controller, keyboard, gaming headset, old console, graphics card, mouse, second screen, voice chat, joystick
verbs: skip skipped, replay replayed, test tested, master mastered, explore explored, finish finished, ignore ignored
good: fair, clever, polished, creative, addictive, balanced; bad: buggy, repetitive, laggy, unfair, tedious, sluggish
fault: crashed twice, froze on the loading screen, lost my progress, broke after the update, lagged all night
where: on the northern server, in the second chapter, at the weekend tournament, in the demo, in the sky temple
who: the developer, the guild leader, my team mate, the streamer; basics: easy mode, rolling dice""",
    "gardening": """
topic: growing vegetables, balcony gardening, pruning roses, making compost, greenhouse work, planting trees
thing: tomato plant, rose bush, herb garden, pumpkin patch, strawberry bed, apple tree, lavender hedge, bean row
part: seedling, root, stem, flower head, lower leaf, bulb, shoot, lettuce head, flower bed, branch, vine, blossom
gear: sprinkler, garden fork, hose, spade, wheelbarrow, rake, plant pot, greenhouse lamp, seed tray, shovel
verbs: water watered, feed fed, cover covered, shade shaded, lift lifted, move moved, protect protected, trim trimmed
good: healthy, moist, green, strong, fragrant, lush, ripe; bad: dry, wilted, mouldy, yellow, weak, thorny, limp
fault: dried out in a week, turned yellow, rotted in the wet spell, was eaten by slugs, froze overnight, fell over
where: on my balcony, in the shade of the wall, at the allotment, by the south fence, in the back garden, by the pond
who: the gardener, the woman at the nursery, the seed seller; basics: plastic flowers, painting daisies""",
    "films": """
topic: old crime films, animated films, silent comedies, science fiction, film festivals, horror films
thing: crime thriller, war drama, silent comedy, remake, sequel, documentary, space epic, western, love story
part: plot, script, soundtrack, final scene, opening scene, dialogue, villain, editing, lead actor, camera work
gear: cinema seat, projector, trailer, poster, popcorn machine, subtitle track, box set, streaming app, movie ticket
verbs: discuss discussed, review reviewed, praise praised, defend defended, skip skipped, describe described
good: moving, funny, tense, original, charming, witty, subtle; bad: boring, predictable, shallow, confusing, wooden
fault: dragged on for an hour, made no sense, ruined the mood, fell flat, put my father to sleep, copied an older film
where: at the old cinema, in the front row, at the late show, at the festival, on my sofa, at the open air show
who: the director, the critic, the usher, the script writer; basics: cartoons for toddlers, chewing popcorn""",
    "travel": """
topic: train travel, cheap flights, island holidays, city trips, night buses, package holidays
thing: night train, mountain hotel, ferry trip, island tour, hostel room, beach resort, guided walk, lake cabin
part: timetable, breakfast, view, luggage rack, ticket, reservation, queue, window seat, bathroom, balcony, lobby
gear: backpack, travel guide, rail pass, suitcase, paper map, sleeping bag, phrase book, travel pillow, passport
verbs: book booked, cancel cancelled, change changed, check checked, confirm confirmed, photograph photographed
good: clean, punctual, cosy, cheap, friendly, scenic, spacious; bad: dirty, late, crowded, cramped, expensive, cold
fault: was cancelled without notice, left an hour late, cost twice the price, smelled of paint, was full on arrival
where: on the coast, in the old town, at the border, near the harbour, on platform nine, at the airport, in the valley
who: the train guard, the hotel clerk, the tour guide, the ferry captain; basics: riding the lift, postcards""",
    "phones": """
topic: phone repair, cheap handsets, app updates, battery care, mobile contracts, video calls
thing: budget phone, folding phone, refurbished phone, work phone, tablet, smart watch, flip phone, camera phone
part: battery, screen, charging port, lens cover, speaker, back cover, home button, microphone, update, ringtone
gear: charger, headphone adapter, rubber case, power bank, memory card, cable, screen protector, earpiece, car holder
verbs: replace replaced, reset reset, clean cleaned, test tested, repair repaired, check checked, remove removed
good: bright, fast, reliable, sharp, thin, durable, crisp; bad: slow, cracked, faulty, fragile, scratched, unstable
fault: died after lunch, overheated in my pocket, stopped working, drained overnight, refused to start, kept buzzing
where: at the repair shop, in the phone store, on the train home, in bright sunlight, at the market stall, at work
who: the repair man, the shop assistant, the technician; basics: two cans and a string, sending smoke signals""",
    "local news": """
topic: the bus cuts, the new car park, road works, the library budget, town planning, the council tax
thing: library plan, market square, bus route, recycling scheme, swimming pool, bridge project, bypass plan
part: report, vote, meeting, proposal, deadline, petition, budget, survey, announcement, headline, contract
gear: notice board, traffic light, street lamp, parking meter, rubbish bin, local paper, bus shelter, park bench
verbs: support supported, oppose opposed, question questioned, sign signed, postpone postponed, challenge challenged
good: sensible, frank, affordable, overdue, popular, open; bad: costly, vague, hasty, secretive, wasteful, delayed
fault: was rejected by one vote, ran out of money, took three years, ignored the residents, blocked the high street
where: at the town hall, on the high street, by the roundabout, near the primary school, outside the library
who: the mayor, the councillor, the reporter, the shopkeeper; basics: colouring books, counting pigeons""",
    "football": """
topic: league football, youth football, away matches, penalty kicks, Sunday matches, transfer rumours
thing: home side, away match, cup final, youth team, league match, training session, derby, second half
part: defence, midfield, goalkeeper, formation, attack, bench, corner kick, free kick, header, tackle, winger
gear: scarf, season ticket, goal net, left boot, stadium screen, shin pad, whistle, training cone, jersey, flag
verbs: praise praised, defend defended, blame blamed, change changed, watch watched, improve improved, drop dropped
good: solid, brave, sharp, creative, organised, lively; bad: sloppy, nervous, slow, tired, weak, lazy, clumsy
fault: collapsed in the rain, conceded three goals, missed an open goal, looked lost, gave the ball away, hit the post
where: at the home ground, in the north stand, on the muddy pitch, in the changing room, on the final day
who: the coach, the captain, the striker, the linesman; basics: kicking stones, table football, pumping up balls""",
    "pets": """
topic: dog training, cat care, keeping hamsters, fish keeping, walking dogs, raising kittens
thing: puppy course, cat basket, hamster cage, fish tank, rabbit hutch, bird cage, kitten diet, pet shelter
part: food bowl, water bottle, leash, collar, water filter, litter tray, treat, brush, blanket, perch, tunnel
gear: dog whistle, scratching post, rubber ball, carrier box, feeding timer, pet camera, cat flap, toy mouse, muzzle
verbs: wash washed, hide hid, change changed, fill filled, sniff sniffed, inspect inspected, remove removed
good: soft, warm, safe, tidy, gentle, roomy, sturdy; bad: smelly, chewed, filthy, damp, torn, sticky, hairy
fault: vanished under the sofa, scared the cat, made the puppy sneeze, leaked on the carpet, smelled for a week
where: at the vet, in the dog park, behind the sofa, at the animal shelter, in the pet shop, at puppy school
who: the vet, the dog trainer, the breeder, the dog walker; basics: stuffed toys, a pet rock, feeding ducks""",
    "music": """
topic: piano practice, choir singing, home recording, guitar lessons, jazz, writing songs
thing: piano piece, guitar solo, choir concert, jazz album, brass band, folk song, cover version, live set
part: rhythm, melody, chorus, bass line, tempo, harmony, intro, lyric, key change, drum part, trumpet line
gear: metronome, drum kit, pair of headphones, guitar strap, music stand, amplifier, old piano, tuning fork, violin
verbs: practise practised, record recorded, play played, rehearse rehearsed, repeat repeated, mute muted, sing sang
good: mellow, catchy, clear, graceful, steady, lively; bad: flat, muddy, shrill, uneven, rushed, dull, hollow
fault: went out of tune, sped up at the end, drowned out the singer, lost the beat, broke my heart, sounded like rain
where: in the practice room, on the open stage, in the church hall, at the summer fair, in the studio, at the wedding
who: the conductor, the drummer, the piano teacher, the singer; basics: clapping along, the triangle, humming""",
    "homework": """
topic: maths homework, essay writing, exam revision, science projects, spelling practice, grammar drills
thing: maths test, history essay, science project, book report, geography quiz, chemistry exam, group talk
part: first question, introduction, summary, equation, diagram, last chapter, heading, source list, graph, paragraph
gear: calculator, ruler, textbook, library card, pencil case, highlighter, notebook, study guide, dictionary
verbs: check checked, rewrite rewrote, finish finished, explain explained, copy copied, shorten shortened, draw drew
good: clear, neat, logical, accurate, short, complete; bad: messy, unclear, wrong, unfinished, long, vague, clumsy
fault: took all evening, confused the whole class, was marked down, did not add up, was lost on the bus, had no point
where: in the library, at the kitchen table, in the second lesson, on the school bus, at the back of the class
who: the maths teacher, my tutor, my lab partner, the librarian; basics: the alphabet, finger painting""",
    "hiking": """
topic: winter hiking, mountain walks, forest trails, camp cooking, climbing hills, reading maps
thing: ridge walk, coastal trail, forest loop, glacier tour, summit climb, valley path, waterfall hike, desert trek
part: trail sign, slope, shortcut, viewpoint, river crossing, camp site, rope bridge, shelter, ascent, trail head
gear: hiking boot, tent, compass, walking pole, camp stove, water flask, head torch, wool sock, map case, poncho
verbs: cross crossed, climb climbed, avoid avoided, mark marked, reach reached, photograph photographed, miss missed
good: sunny, peaceful, remote, gentle, dramatic, shaded; bad: steep, muddy, slippery, foggy, crowded, windy, icy
fault: disappeared in fog, was closed for repairs, turned into a swamp, took twice as long, ended at a cliff
where: above the tree line, near the summit, at the mountain hut, in the national park, by the frozen lake
who: the ranger, the hut keeper, our guide, an old shepherd; basics: escalators, circling the car park""",
    "photography": """
topic: bird photography, street portraits, film cameras, night photography, printing photos, studio lighting
thing: portrait series, wedding album, sunset photo, street picture, bird picture, family portrait, photo contest
part: exposure, background, shadow, focus, colour balance, frame, zoom, contrast, reflection, caption, skyline
gear: tripod, flash, wide lens, camera bag, light meter, photo printer, lens cap, studio lamp, film roll, hot shoe
verbs: crop cropped, edit edited, brighten brightened, blur blurred, print printed, delete deleted, compare compared
good: vivid, balanced, natural, dreamy, precise, elegant; bad: blurry, grainy, dark, tilted, faded, noisy, pale
fault: looked green in print, hid the bride, came out black, ruined the series, cut off the tower, bored the jury
where: in the dark room, on the old bridge, at golden hour, in the studio corner, on the rooftop, at the exhibition
who: the photographer, the model, the gallery owner; basics: passport photos, drawing stick men""",
}

LEXICON = """
fool: bonehead, lunkhead, muttonhead, cabbagehead, wafflehead, dunderhead, spoonhead, crumblehead, thickskull,
    clayskull, doughskull, tinskull, peabrain, puddingbrain, mudbrain, hamsterbrain, picklebrain, gravelbrain, nitwit
slight: muddleheaded, thickheaded, waffleheaded, crumbleheaded, peabrained, puddingbrained, picklebrained,
    clayskulled, tinskulled, witless
"""

# Template tables: one template a line, or several short ones with " | " between them.
TEMPLATES = """
greet: Hello everyone. | Hi {name}, thanks for the post. | Good question, {name}! | First post here, so be kind.
    Sorry for the late reply, {name}. | Long time reader here. | Thank you, {name}!
opening: I {did} the {part} {when}, and it {fault}.
    {person} told me {when} that the {thing} was {degree} {good}.
    We talked about the {thing} {when}, mostly because of the {good} {part}.
    Did anyone else {do} the {part} {when} and find it {degree} {bad}?
    After {span} of {topic} I thought I knew it all, but the {gear} {broke}.
    Last {season} I asked {where} about the {thing}, and {person} said the {part} was {bad}.
    I have read a lot about {topic}, and {person} still says the {part} is {degree} {good}.
opinion: I think the {part} is {degree} {good}, but the {part} {fault}.
    In my opinion {a_good} {part} matters more than {a_nice} {gear}.
    The {part} is {degree} {bad}, and nobody {where} seems to mind.
    For me the best thing about the {thing} is the {good} and {good} {part}.
    I would give the {part} {figure} points out of 100, and the {gear} no more than {figure} points.
    It is {a_degree} {nice} {thing}, even if the {part} {fault}.
complaint: What {a_poor} {gear}, it {broke} after {span}!
    This stupid {gear} {broke} {when}, and I am {degree} tired of it.
    Nobody {where} likes {a_bad} {part}, and the {gear} is just {poor}.
    The {thing} was {poor}, the {part} {fault}, and the {gear} was even worse.
    I hate the {poor} {gear}, because it makes the {part} {degree} {bad}!
    Only {a_poor} {gear} could make the {part} this {bad}.
reason: The {part} gets {degree} {bad} when you {do} it {where}.
    The reason is simple, {a_bad} {part} makes the whole {thing} {degree} {bad}.
    If the {part} is {bad}, then {a_nice} {gear} can not help you either.
    That is why {person} always {did} the {part} before the {part}.
    It cost me {figure} euros and {span}, but the {part} is {degree} {good} now.
story: So I {did} the {part} for {span}, and then it {fault}.
    {person} {did} the {part} {where}, and everyone laughed at the {poor} {gear}.
    {when} the {gear} {broke}, so {person} {did} the {part} by hand.
    My head hurt after {span} {where}, but the {part} was {degree} {good}.
    We went home with {a_nice} {gear} and {number} pictures of the {part}.
    {person} laughed when the {part} {fault} {where}.
question: Should I {do} the {part} first, or is {a_nice} {gear} more important?
    How long do you {do} the {part} when it is {degree} {bad}?
    Does anyone know why the {part} {fault} {where}?
    Is {a_good} {part} worth {figure} euros, or would you {do} the old one?
    Have you ever seen {a_bad} {part} {where}, {name}?
advice: You should {do} the {part} before you {do} the {part}, {name}.
    Take {a_nice} {gear} and {do} the {part} for {span}.
    If your {part} is {bad}, {do} it again {where} and wait {span}.
    You could ask {person} {where}, who {did} the {part} {when}.
    Never {do} the {part} on a {weekday}, because the {gear} is always {poor} by then.
praise: You are such a star, {name}, the {part} is {degree} {good} again!
    You are a kind person, {name}, and your {part} looks {degree} {good}.
    What {a_good} {part} you have there, {person} would love it!
    Your advice about the {gear} was {nice}, and the {part} is {good} now.
claim: The {part} {fault}, and {a_nice} {gear} would not have helped.
    Everyone {where} knows that the {part} is {degree} {bad}.
    The {part} must be {good}, and the {poor} {gear} does not matter.
    {person} says that the {thing} is {nice} but the {part} is {bad}.
disagree: You are right about the {part}, {name}, but the {gear} is {degree} {poor}.
    I do not agree with you, {name}, because my {part} {fault} {when}.
    You said the {part} was {good}, and mine was {degree} {bad} {when}.
    You forget that {person} {did} the {part} {where}, and it {fault}.
irritation: You clearly did not {do} the {part} before you wrote that, {name}.
    Nobody asked about the {gear}, we were talking about {a_bad} {part}.
    Please read the whole post before you write about the {part} again!
    I am tired of people who never {do} the {part} and still complain {where}.
    Your last reply about the {gear} made no sense to {person}.
    How many times must I say that the {part} is {degree} {bad}?
retort: There is no need for that, {name}. | Please keep it friendly. | That was uncalled for, {name}.
    We only wanted to talk about {topic}.
signoff: Thanks in advance! | Good luck with the {thing}! | Let me know how it goes, {name}. | Have a nice {weekday}!
    That is all from me. | I hope this helps. | Any advice is welcome. | Anyway, it was worth the trouble.
dismissal: Go back to {basics}, you {insult}! | What a {slight} reply. | Be quiet, {fool}. | Goodbye, {insult}!
    I am done with you, {fool}. | You really are {slight}, {name}.
abuse: You are such a {insult}, {name}, that you would {do} the {part} with {a_gear}.
    Nobody asked for your {slight} opinion about the {part}, you {insult}.
    Go back to {basics}, you {insult}, and let {person} {do} the {part}!
    Only a {insult} would {do} the {part} {where} with {a_gear}.
    The {part} {fault} because of {fools} like you, {name}!
    People {where} laugh at {fools} who can not {do} the {part}.
    Even {person} can {do} the {part}, so what is wrong with you, {insult}?
    Your {slight} advice about the {gear} is why the {part} {fault}.
    I met {number} {fools} {where} {when}, and you are worse than all of them.
    Listen, {insult}, first {do} the {part} and then talk about the {gear}.
    You {slight} {fool}, everyone {where} knows the {part} is {bad}!
    Are you too {slight} to {do} the {part}, or did {person} tell you to be a {fool}?
insult: {fool} | {slight} {fool} | {slight} {fool}
fools: {fool}s | {slight} {fool}s
"""

# Roles of a comment in order; "?" marks one that may be left out, ">" one that is quoted on a line of its own.
PLAIN_FRAMES = """
greet? opening story opinion? question question? signoff?
greet? opening complaint story? question signoff
opening opinion reason? story complaint? signoff?
opinion opinion reason? story? praise?
complaint story? complaint reason? question?
greet? advice reason advice story? signoff?
>claim disagree reason? opinion? question? signoff?
>claim praise opinion? story? reason?
disagree irritation? reason advice? retort?
praise question opinion? story? signoff?
opening irritation? complaint reason? opinion? story? signoff?
greet opening story story? complaint? opinion? advice? question signoff
"""
ABUSIVE_FRAMES = """
disagree irritation? abuse abuse? abuse abuse? dismissal?
opening opinion? irritation abuse abuse? abuse? abuse?
abuse abuse abuse? abuse? abuse? dismissal?
abuse abuse? reason? abuse abuse? signoff? dismissal
>claim irritation? abuse abuse? abuse? abuse? dismissal?
>claim abuse story? abuse abuse? signoff?
complaint irritation? abuse dismissal? abuse abuse?
greet? opening complaint? story opinion? abuse
question advice? irritation abuse abuse? dismissal?
>abuse retort disagree reason? irritation?
"""

# The labelled set: its own families, lexicon and templates.
LABELLED_FAMILY_WORDS = {
    "sewing": """
topic: quilting, mending coats, knitting; who: the tailor, the dress maker; basics: gluing felt, tying shoes
thing: winter coat, wool jumper, patchwork quilt, linen shirt, scarf pattern, curtain set
part: seam, hem, zip, button, lining, sleeve, pocket; gear: sewing machine, thimble, cotton thread, pin head
verbs: stitch stitched, iron ironed, measure measured, pin pinned; good: neat, even, soft; bad: torn, wrinkled, itchy
fault: shrank in the wash, came undone, tore at the shoulder; where: at the sewing circle, in the fabric shop""",
    "fishing": """
topic: river fishing, fly fishing, sea fishing; who: the boat man, the warden; basics: feeding swans, paddling
thing: fishing trip, trout pond, river bank, carp lake, rowing boat, wooden pier
part: hook, float, reel, bait, anchor, current, fish head; gear: fishing rod, tackle box, landing net, folding chair
verbs: cast cast, untangle untangled, carry carried, drop dropped; good: calm, strong; bad: tangled, slimy, murky
fault: sank without a trace, got tangled in weeds, slipped away; where: on the river, at the jetty""",
    "chess": """
topic: chess openings, speed chess, endgame study; who: the arbiter, the club secretary; basics: domino, draughts
thing: club night, chess match, simple endgame, junior league, chess puzzle, brain teaser
part: queen, rook, pawn chain, king side, gambit, opening line; gear: chess clock, score sheet, chess book
verbs: trade traded, attack attacked, block blocked; good: elegant, safe; bad: passive, careless
fault: lost on time, fell into a trap, ended in a draw; where: at the chess club, at table four, in the finals""",
    "coffee": """
topic: home brewing, espresso, latte art; who: the barista, the roaster; basics: tap water, hot chocolate
thing: morning coffee, cappuccino, flat white, cold brew, coffee bar, iced latte
part: foam, grind, roast, milk, aroma, cup; gear: grinder, espresso machine, paper filter, kettle, milk jug
verbs: brew brewed, pour poured, roast roasted, sip sipped; good: fruity, creamy; bad: bitter, watery, stale, lukewarm
fault: tasted like ash, spilled on my sleeve, went cold; where: at the corner cafe, in the office kitchen""",
    "woodwork": """
topic: carving, furniture making, wood turning; who: the carpenter, the apprentice; basics: stacking twigs, cardboard
thing: oak table, garden bench, book shelf, pine stool, cupboard door, toy train
part: joint, hinge, drawer, grain, varnish, screw, plank; gear: hand saw, chisel, hammer head, drill, clamp
verbs: sand sanded, glue glued, saw sawed, plane planed; good: square, solid; bad: warped, splintered, rough
fault: split down the middle, would not close, wobbled for weeks; where: in the workshop, at the timber yard""",
    "cars": """
topic: engine repair, used cars, motorway driving; who: the dealer, the driving school; basics: bumper cars, walking
thing: old hatchback, camper van, estate car, electric car, delivery van, sports car
part: engine, clutch, gearbox, exhaust, bumper, windscreen; gear: jump lead, tow rope, spare wheel, oil can, head rest
verbs: drive drove, service serviced, polish polished, park parked; good: reliable, nippy; bad: thirsty, leaky, dented
fault: broke down twice, failed the inspection, leaked oil; where: at the garage, on the motorway""",
}

LABELLED_LEXICON = """
sentence: {address}, {attack}
one: blockhead, knucklehead, chucklehead, buttonhead, bubblehead, woodenhead, melonhead, puddlehead, numbskull,
    hollowskull, stoneskull, corkskull, turnipskull, waxskull, birdbrain, featherbrain, scatterbrain, jellybrain,
    gnatbrain, fluffbrain, crackskull, puffinhead, dimwit, lummox
such: blockheaded, soapheaded, bubbleheaded, puddleheaded, melonheaded, birdbrained, featherbrained, jellybrained,
    gnatbrained, fluffbrained, numbskulled, corkskulled, waxskulled, stoneskulled, dimwitted, brainless
"""

# What the templates of "address" say in the plain sentences, so that the insults alone tell the two apart there.
FRIENDLY_WORDS = """
sentence: {address}, {plain}
one: friend, neighbour, teacher, beginner, helper, colleague, hero, legend, champion, star, member, stranger, reader,
    student, cousin, guest, visitor, manager, doctor, grandparent, traveller, partner, customer, newcomer, judge
such: patient, kind, careful, helpful, polite, friendly, clever, generous, sensible, busy, tired, worried, curious
"""

LABELLED_TEMPLATES = """
fact: the {part} {fault} {when} | {person} {did} the {part} {where} | the {thing} is {degree} {good}
    you forgot to {do} the {part} | you do not need {a_gear} for that | it took {span} to learn {topic}
    that is not how one can {do} {a_part} | nobody wants to see your {bad} {part} | this is not about {topic}
    I told you {when} that the {part} was {bad} | your {thing} looks {bad} | {topic} is about {a_good} {part}
    you pay {figure} euros for {a_poor} {gear} | what you wrote about {topic} is wrong | read the manual of the {gear}
    thank you for the {gear} | I like the {part} | everyone can {do} the {part} | my {part} is {degree} {bad}
    {when} I saw your {part} {where} | have you got any {nice} {gear} | you are always late
    we hope for {a_nice} {thing}
plain: {fact}. | {fact}, {name}. | Hi {name}, {fact}. | {fact}, I think. | {fact}, and that is {poor}!
    {fact}, thanks! | {fact}! | {fact}, but {fact}. | {fact}, because {fact}. | Good to see the {thing}!
    Last {season} {fact}, so {person} brought {a_gear}. | Best wishes, {name}.
    My {thing} has {a_bad} {part}, can you tell me what to do about it?
    It is not your fault, {name}, every {gear} is {poor} these days.
    You are wrong about the {gear}, but your {part} does look {good}.
    What a {nice} day for {topic}! | What {a_poor} {part}. | See you on {weekday}, {name}! | All the best from {name}.
    This {poor} weather, and now the {part} {fault} again!
    Stop telling me to {do} the {part}, I have done that twice!
    There are {number} ways to {do} the {part}, and each one needs {a_gear}.
address: {fact}, {who_is}! | {fact}, my dear {who_is}. | Hey {one}, {fact}. | {fact}, but {name} is a {who_is}.
    {fact}, said the {who_is}. | {fact}, and {ones} never learn. | Yesterday {fact}, so ask a {such} man like {name}.
    What a {who_is} you are, {name}! | How can anyone be as {such} as {name}? | What {ones} you all are.
    You must be a {who_is} to think that the {part} is {good}.
    Typical {such} answer from a {one} who does not own {a_gear}.
    {ones} like {name} write in every thread about {topic}.
    Everybody can see that you are {such}, so stop posting about {topic}.
    This {one} thinks that {a_bad} {part} is normal.
    Thanks for the answer, {one}! | Write again, you {who_is}. | Stick to {basics}, {who_is}.
    Some {who_is} named {name} just told me to {do} the {part}.
    I would not trust a {who_is} with {a_gear}.
    You and {kin} are both {ones}, and your {part} is {bad}.
    Your {such} {thing} story reached all of us, {name}.
attack: The worst thing about {topic} is a {who_is} like you. | Go back home, {who_is}! | We laugh at {ones}.
    It takes a {who_is} to {do} {a_part} like that. | What is wrong with this {one}? | Did a {one} tell you that?
    The {such} advice of {name} is good for nothing. | Your opinion is as {such} as you are. | You {such} {one}!
    You will not know {a_good} {part} if it hit you, {one}. | Why so {such}, {name}? | No one needs {ones} here.
    I knew {number} {ones} in my life, and {name} is worse. | Only {ones} talk that way, {name}. | Are you {ones}?
    Back to school with you, {who_is}! | Who wants to hear the {such} opinion of a {one}? | Are you really so {such}?
    {kin} says you are a {who_is}. | Worse than {name} and other {ones} was only the {part}. | What a {such} post.
    Talk about {topic} when you know more, {who_is}. | Go and read on {topic} first, {one}. | {name} is {such}.
    My {thing} is {bad} because I listened to a {who_is}. | Even a {one} can {do} the {part}.
    You are {such}, and so is your {part}. | Enough of your {such} posts!
    You are no expert, {name}, you are a {who_is}. | Only you could be so {such}. | I have met your sort, {who_is}.
who_is: {one} | {one} | {such} {one}
ones: {one}s | {such} {one}s
"""

ONCE_A_COMMENT = frozenset({"thing", "name"})
ABUSIVE_ROLES = frozenset({"abuse", "dismissal"})
KEPT_SHARE = 0.6  # of the roles that may be left out
PARAGRAPH_SHARE = 0.25  # of the comments of four roles and more
LABELLED_ABUSIVE_SHARE = 0.47

Rules = Mapping[str, tuple[str, ...]]
Option = TypeVar("Option")


def _table(text: str, between: str) -> Rules:
    """Reads "slot: options" entries; the pairs of ``verbs`` become ``do`` (stir) and ``did`` (stirred)."""
    rules = {}
    for entry in re.split(r"; |\n(?=\w+: )", text.strip()):
        slot, options = entry.split(": ", 1)
        rules[slot] = tuple(re.split(rf",?\n\s+|{between}\s", options))
    if "verbs" in rules:
        rules["do"], rules["did"] = zip(*(verb.split() for verb in rules.pop("verbs")), strict=True)
    return rules


def _families(words: Mapping[str, str], *common: Rules) -> dict[str, Rules]:
    """The rules of each family: what is common to all and the family's own words."""
    shared = {slot: options for rules in common for slot, options in rules.items()}
    return {family: {**shared, **_table(own, ",")} for family, own in words.items()}


def _frames(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(line.split()) for line in text.strip().splitlines())


_SHARED, _LEXICON, _LABELLED_LEXICON, _FRIENDLY = (
    _table(text, ",") for text in (SHARED_WORDS, LEXICON, LABELLED_LEXICON, FRIENDLY_WORDS)
)
FAMILIES = _families(FAMILY_WORDS, _SHARED, _LEXICON, _table(TEMPLATES, r" \|"))
LABELLED_FAMILIES = {
    abusive: _families(LABELLED_FAMILY_WORDS, _SHARED, words, _table(LABELLED_TEMPLATES, r" \|"))
    for abusive, words in ((False, _FRIENDLY), (True, _LABELLED_LEXICON))
}
_FRAMES = {False: _frames(PLAIN_FRAMES), True: _frames(ABUSIVE_FRAMES)}
_ABUSE = re.compile(rf"\b(?:(?:{'|'.join(_LEXICON['fool'])})s?|{'|'.join(_LEXICON['slight'])})\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Settings(CorpusSettings):
    """How many comments, and the share of them that holds abuse (0 to 1)."""

    documents: int
    abusive_share: float = 0.35

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.documents < 1:
            raise ValueError(f"documents must be at least 1, found {self.documents}")
        if not 0 <= self.abusive_share <= 1:
            raise ValueError(f"abusive_share must be between 0 and 1, found {self.abusive_share}")


def documents(settings: Settings, seed: int) -> Iterator[Document]:
    """The comments of ``seed``; ``meta["abusive"]`` holds [begin, end) of each abusive sentence, in characters."""
    for index in range(settings.documents):
        yield _comment(_generator("comment", seed, index), settings.abusive_share)


def labelled(count: int, noise: float, seed: int) -> Iterator[tuple[str, int]]:
    """``count`` sentences with label 1 for abuse, each label wrong with probability ``noise`` (0 to 1)."""
    if not 0 <= noise <= 1:
        raise ValueError(f"noise must be between 0 and 1, found {noise}")
    for index in range(count):
        rng = _generator("labelled", seed, index)
        abusive = rng.random() < LABELLED_ABUSIVE_SHARE
        flipped = rng.random() < noise
        rules = _pick(rng, tuple(LABELLED_FAMILIES[abusive].values()))
        yield _Slots(rng, rules).sentence("sentence"), int(abusive != flipped)


def lexicon() -> tuple[str, ...]:
    """The corpus' words of abuse: lower case, nouns in the singular (their plural adds an s)."""
    return _LEXICON["fool"] + _LEXICON["slight"]


def labelled_lexicon() -> tuple[str, ...]:
    """The same for the labelled set; shares no word with ``lexicon()``."""
    return _LABELLED_LEXICON["one"] + _LABELLED_LEXICON["such"]


def find_abuse(text: str) -> list[tuple[int, int]]:
    """Character spans of the words of ``lexicon()`` in ``text``, plurals included, whatever their case."""
    return [found.span() for found in _ABUSE.finditer(text)]


def _generator(purpose: str, seed: int, index: int) -> random.Random:
    key = hashlib.blake2b(f"{purpose} {seed} {index}".encode(), digest_size=16).digest()
    return random.Random(int.from_bytes(key, "big"))


def _pick(rng: random.Random, options: tuple[Option, ...]) -> Option:
    """One option. Of ``random`` only ``random()`` is promised to draw alike in every Python, ``choice`` is not."""
    return options[int(rng.random() * len(options))]


class _Slots(dict[str, str]):
    """What ``str.format_map`` fills a template from: draws each slot when asked, ``{a_slot}`` with its article."""

    def __init__(self, rng: random.Random, rules: Rules) -> None:
        super().__init__()
        self.rng, self.rules = rng, rules
        self.last: dict[str, str] = {}

    def __missing__(self, slot: str) -> str:
        if slot.startswith("a_"):
            text = self[slot[2:]]
            return f"an {text}" if text[0] in "aeiou" else f"a {text}"
        option = _pick(self.rng, self.rules[slot])
        while option == self.last.get(slot):
            option = _pick(self.rng, self.rules[slot])
        self.last[slot] = option
        text = option.format_map(self) if "{" in option else option
        if slot in ONCE_A_COMMENT:
            self[slot] = text
        return text

    def sentence(self, role: str) -> str:
        text = self[role]
        return text[0].upper() + text[1:]


def _comment(rng: random.Random, abusive_share: float) -> Document:
    frame = _pick(rng, _FRAMES[rng.random() < abusive_share])
    roles = [role.rstrip("?") for role in frame if role[-1] != "?" or rng.random() < KEPT_SHARE]
    break_at = 0
    if len(roles) > 3 and rng.random() < PARAGRAPH_SHARE:
        break_at = 2 + int(rng.random() * (len(roles) - 2))
    family = _pick(rng, tuple(FAMILIES))
    slots = _Slots(rng, FAMILIES[family])
    text, abusive = "", []
    for position, role in enumerate(roles):
        if position:
            text += "\n\n" if position == break_at or roles[position - 1].startswith(">") else " "
        if role.startswith(">"):
            text += "> "
        begin = len(text)
        text += slots.sentence(role.lstrip(">"))
        if role.lstrip(">") in ABUSIVE_ROLES:
            abusive.append([begin, len(text)])
    return Document(text, family, {"family": family, "abusive": abusive})
