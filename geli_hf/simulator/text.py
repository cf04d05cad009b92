# ruff: noqa: E501 - a line is a detail, and reads best whole
"""What the people of the sample corpus talk about: topics, the things in them, and what happened to those things.

Text only. Each line of a topic is one detail of somebody's life:

    kind number noun phrase | something good | something bad | something neutral

`kind` is p (a person or an animal), t (a thing) or e (an occasion), and picks the questions that make sense of it;
`number` is s (singular) or p (plural). Every event is a past-tense clause that names the detail and can be followed
by a time ("this week"). The words are few on purpose, so that a language model can learn them from scratch within a
minute; the variety comes from combining them (see `sample_grammar`).
"""

TOPICS = {
    "gardening": """
        t p my tomatoes | my tomatoes won a prize at the village show | the frost killed all of my tomatoes | I moved my tomatoes to the sunny wall
        t p my roses | my roses came into flower at long last | something ate every one of my roses | I cut back my roses before the rain
        t s my vegetable patch | my vegetable patch gave us a huge basket of beans | somebody walked all over my vegetable patch | I put new soil on my vegetable patch
        p s my neighbour | my neighbour gave me ten lovely young plants | my neighbour cut down my favourite tree | my neighbour came by to look at the fence
        t s my greenhouse | my greenhouse was finished just in time for the seeds | the storm broke half of my greenhouse | I put some shelves in my greenhouse
    """,
    "starting a new job": """
        p s my boss | my boss told everyone how good my work was | my boss shouted at me in front of everyone | my boss asked me to sit near the door
        p p my colleagues | my colleagues took me out to a lovely lunch | my colleagues went to lunch without me again | my colleagues showed me where to find paper
        e s my first meeting | my first meeting ended with people clapping | my first meeting went completely wrong | I took some notes at my first meeting
        t p my hours | I got my hours as I wanted them | my hours were cut without a word | I wrote my hours into the new book
        t s my desk | I came in and found flowers on my desk | somebody stole the money from my desk | I moved my desk closer to the window
    """,
    "keeping a dog": """
        p s my dog | my dog learned to come when called | my dog got very ill and could hardly stand | I took my dog along the river
        p s my puppy | my puppy slept through the whole night | my puppy ran away and got lost | I bought a red collar for my puppy
        p s my vet | my vet said that everything had healed | my vet found something bad on the scan | my vet moved to a bigger place
        e s my morning walk | I made three new friends on my morning walk | a car nearly hit us on my morning walk | I took the other path on my morning walk
        t s my lead | I finally found my lead after a month | my lead broke in the middle of the road | I swapped my lead for a longer one
    """,
    "moving house": """
        t s my new flat | I got the keys to my new flat | water came through the roof of my new flat | I measured the rooms of my new flat
        t p my boxes | friends helped me carry all of my boxes | the van left with half of my boxes | I put labels on my boxes
        p s my landlord | my landlord gave me all of the money back | my landlord told me to get out | my landlord sent me a letter about the bins
        t s my old place | somebody lovely took over my old place | I cried when I locked up my old place | I painted the hall of my old place
        t s my sofa | my sofa fitted through the door at the first try | my sofa got ruined on the stairs | I put my sofa under the window
    """,
    "running": """
        e s my first race | I finished my first race faster than I had dreamed | I had to give up halfway through my first race | I picked up the number for my first race
        t s my knee | my knee stopped hurting after all these months | my knee gave way on the hill | I put some ice on my knee
        t p my shoes | I found my shoes in the sale for half the price | my shoes gave me terrible pains | I cleaned my shoes and dried them
        p p my running friends | my running friends threw a party for me | my running friends stopped asking me along | my running friends met at the bridge
        e s my long run | I felt wonderful from start to end on my long run | I fell and hurt myself on my long run | I went round the lake on my long run
    """,
    "baking": """
        t s my sourdough | my sourdough came out perfect for the first time | my sourdough came out as flat as a stone | I fed my sourdough before breakfast
        t s my oven | my oven was repaired after a long wait | my oven broke down in the middle of a cake | I cleaned my oven from top to bottom
        e s my cake stall | I sold everything at my cake stall | nobody came to my cake stall | I set up my cake stall at the church
        p s my grandmother | my grandmother taught me her secret recipe | my grandmother was too ill to bake with me | my grandmother lent me her old bowl
        t p my biscuits | everyone at the party loved my biscuits | I burned my biscuits and filled the house with smoke | I put nuts in my biscuits
    """,
    "working nights": """
        e p my night shifts | I was taken off my night shifts with more pay | I cried from being so tired on my night shifts | I counted the stock on my night shifts
        t s my sleep | my sleep came back to normal | my sleep went to pieces | I kept a record of my sleep
        p s my manager | my manager gave me the holiday off | my manager blamed me for a mistake | my manager changed the list of names
        p s my patient | my patient got well and went home | my patient died while I was there | my patient asked for the window to be opened
        e s my last break | I saw the most beautiful sunrise on my last break | I was called back from my last break to an accident | I ate some soup on my last break
    """,
    "travelling": """
        e s my trip to the sea | my trip to the sea was pure joy | it rained every day on my trip to the sea | I took the slow train on my trip to the sea
        t s my suitcase | my suitcase was found with everything inside | my suitcase got lost on the way | I packed my suitcase in an hour
        t s my hotel | my hotel gave me the best room for free | there were insects in every bed at my hotel | my hotel was close to the station
        p s my travel friend | my travel friend planned a surprise for me | my travel friend walked out on me | my travel friend read the map on the bus
        t p my photos | a magazine asked to print my photos | I lost my phone with all of my photos | I put my photos in order
    """,
    "learning music": """
        t s my guitar | I played my guitar in front of people and they cheered | my guitar fell down and broke | I put new strings on my guitar
        p s my teacher | my teacher said I had real talent | my teacher told me I should give up | my teacher changed the day of the lesson
        e s my concert | my concert ended with the whole room on its feet | I forgot every note at my concert | I wore a blue shirt at my concert
        p s my band | my band was asked to play at a wedding | my band broke up after a fight | my band tried out a slower song
        t s my piano | my uncle paid to have my piano repaired | I had to sell my piano to pay the rent | I had my piano moved to the back room
    """,
    "family": """
        p s my sister | my sister told me she was having a baby | my sister stopped speaking to me | my sister rang me about the summer
        p s my father | my father came home from hospital fit and well | my father was taken to hospital | my father cleared out the garage
        p p my children | my children made me breakfast in bed | my children were bullied at school | my children started at the swimming club
        p s my grandson | my grandson took his very first steps | my grandson had a bad fall | my grandson came to us for tea
        e s my family party | everybody I love came to my family party | my family party ended in a terrible fight | I made the list for my family party
    """,
    "cooking": """
        t s my kitchen | my kitchen was finished and looked lovely | there was a fire in my kitchen | I painted my kitchen a light green
        e s my dinner party | my dinner party was the best night in years | all of my guests were sick after my dinner party | I laid the table for my dinner party
        t s my fish soup | my son asked for more of my fish soup | nobody could eat my fish soup | I tried less salt in my fish soup
        e s my cooking class | I made a good friend at my cooking class | I cut my hand badly at my cooking class | we made fresh pasta at my cooking class
        t p my knives | my aunt gave me my knives as a present | a thief took all of my knives | I had my knives made sharp
    """,
    "cycling": """
        t s my bike | the police found my bike without a scratch | somebody stole my bike outside the shop | I put a new light on my bike
        e s my ride to work | I had birds and sun all the way on my ride to work | a bus pushed me off the road on my ride to work | I left a bit later for my ride to work
        p s my cycling club | my cycling club chose me for the team | my cycling club closed down for good | my cycling club met in the old mill
        t s my helmet | my helmet saved me from getting hurt | my helmet broke and I hurt my head | I bought a bag for my helmet
        e s my tour of the hills | I made it to the top on my tour of the hills | I got lost in the fog on my tour of the hills | I drew the route for my tour of the hills
    """,
    "going back to school": """
        e s my exam | I passed my exam with the best mark | I failed my exam by one point | I sat my exam in the big hall
        t s my essay | my essay was read out to the class | I lost my essay when the computer died | I gave my essay a shorter title
        p s my tutor | my tutor said my work made her day | my tutor laughed at my question | my tutor gave us a list of books
        p p my classmates | my classmates voted for me as their speaker | my classmates made fun of me | my classmates met in the library
        t s my loan | I paid back the last part of my loan | I was turned down for my loan | I filled in the form for my loan
    """,
    "reading": """
        p s my book club | my book club loved the story I chose | my book club asked me to leave | my book club met on a different day
        t s my library | my library was saved at the last minute | my library closed its doors for ever | my library got a new front door
        t s my novel | a publisher said yes to my novel | the tenth publisher said no to my novel | I changed the name of a person in my novel
        t p my glasses | I read for hours thanks to my glasses | I sat on my glasses and broke them | I picked a brown frame for my glasses
        t p my old books | I found a letter from my mother in my old books | the flood ruined my old books | I put my old books in the hall
    """,
    "swimming": """
        e s my swimming lesson | I swam a whole length at my swimming lesson | I nearly drowned at my swimming lesson | I practised my legs at my swimming lesson
        t s my pool | I was the first one in when my pool opened again | my pool was shut because of a leak | my pool changed its opening times
        t s my shoulder | my shoulder healed and I could move it freely | I tore something in my shoulder | I had a massage on my shoulder
        p s my coach | my coach put me in the first team | my coach dropped me from the team | my coach gave me a plan to follow
        e s my sea swim | I saw a seal right beside me on my sea swim | I was stung all over on my sea swim | I wore a thick suit on my sea swim
    """,
    "planning a wedding": """
        t s my dress | my dress fitted me like a dream | the shop lost my dress | I hung my dress behind the door
        p s my partner | my partner wrote me the sweetest song | my partner called the whole thing off | my partner wrote the names on the cards
        t s my guest list | everyone on my guest list said yes | half of my guest list said no | I printed my guest list on yellow paper
        p s my mother | my mother cried with joy and hugged me | my mother refused to come | my mother looked at some hats
        t p my rings | my rings were ready and shone like stars | I dropped my rings down the drain | I had my rings made a bit wider
    """,
    "learning to drive": """
        e s my driving test | I passed my driving test without a single mistake | I failed my driving test for the third time | I got the date for my driving test
        t s my car | my parents helped me to buy my car | I drove my car into a wall | I washed my car in the yard
        p s my instructor | my instructor said I was the best of the year | my instructor made me feel stupid | my instructor sat in the back
        e s my first motorway drive | I stayed calm and happy on my first motorway drive | I had a crash on my first motorway drive | I followed a lorry on my first motorway drive
        t s my parking | my parking got so good that people stared | I got a huge fine for my parking | I practised my parking behind the shops
    """,
    "painting": """
        t s my painting of the harbour | a gallery bought my painting of the harbour | my cat ruined my painting of the harbour | I put a frame on my painting of the harbour
        e s my little show | my little show was full from morning to night | not one person came to my little show | I hung the pictures for my little show
        t s my studio | I won a year of rent for my studio | I lost my studio because of the rent | I put a stove in my studio
        t p my brushes | my husband gave me my brushes for my birthday | my brushes got left out and went hard | I washed my brushes in warm water
        p s my art group | my art group clapped when they saw my work | my art group said my work was dull | my art group drew a bowl of fruit
    """,
    "camping": """
        t s my tent | my tent kept us warm and dry in the storm | the wind tore my tent to pieces | I put up my tent under an oak
        e s my mountain trip | I saw the stars as never before on my mountain trip | I broke my foot on my mountain trip | I carried too much food on my mountain trip
        t s my stove | my stove made the best coffee of my life | my stove blew up and burned my arm | I bought some gas for my stove
        p p my cousins | my cousins came all that way to join me | my cousins left me alone in the rain | my cousins brought a box of games
        t s my camp fire | we sang until late around my camp fire | my camp fire got out of control | I used dry wood for my camp fire
    """,
    "football": """
        p s my team | my team won the cup | my team lost six to nothing | my team played at the other ground
        p s my daughter | my daughter scored the winning goal | my daughter broke her leg in the game | my daughter played on the left side
        t p my season tickets | I won my season tickets in a draw | I had to give away my season tickets | I kept my season tickets in a drawer
        t s my old ankle injury | my old ankle injury healed for good | my old ankle injury came back worse than ever | I showed a doctor my old ankle injury
        e s my last match | they carried me off on their shoulders after my last match | I was sent off in my last match | I played in goal in my last match
    """,
    "fixing up an old house": """
        t s my roof | my roof was finished before the rain | my roof fell in during the storm | I counted the broken tiles on my roof
        p s my builder | my builder did the whole job for half the price | my builder took the money and ran away | my builder brought the sand and the stones
        t s my bathroom | I had a first hot bath in my bathroom | my bathroom was flooded up to my knees | I chose white tiles for my bathroom
        t p my windows | my windows let in so much light that I sang | children threw stones through my windows | I painted my windows dark blue
        t s my cellar | I found a box of old silver in my cellar | I found rats all over my cellar | I swept the floor of my cellar
    """,
    "helping others": """
        p s my old friend | my old friend got out of her bed and danced with me | my old friend forgot who I was | my old friend told me about the war
        e s my reading hour | a shy boy read a whole page in my reading hour | nobody turned up to my reading hour | I brought some cushions to my reading hour
        t s my food bank | my food bank got a big gift from the town | my food bank ran out of food | my food bank moved to a side street
        p p my volunteers | my volunteers gave me a card with all their names | my volunteers left one after the other | my volunteers met to plan the month
        e s my charity walk | I raised more than I had dreamed on my charity walk | thieves took the money from my charity walk | I handed out water on my charity walk
    """,
}

GOOD, BAD, NEUTRAL = "good", "bad", "neutral"
VALENCES = (GOOD, BAD, NEUTRAL)
