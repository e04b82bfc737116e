"""Short children's stories from a seeded grammar.

In: how many stories, and a seed. Out: that many stories, each one line of plain English (ASCII), about 60 to 150 words
long. The same seed gives the same stories on every Python version: of `random.Random` only `random()` is used, the one
method whose sequence Python promises to keep.

A plot is a tuple of beats told in order, a beat is a tuple of sentences of which one is told. `{braces}` stand for the
story's cast and props; these are drawn once a story, so that its hero keeps name, pronouns and belongings to the end.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Beat = tuple[str, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Plot:
    """A story's skeleton.

    Attributes:
        places: Where it can happen, each with its preposition ("in the garden").
        things: What it can be about, without an article ("red ball").
        beats: What happens, in order; of each beat's sentences one is told.
    """

    places: tuple[str, ...]
    things: tuple[str, ...]
    beats: tuple[Beat, ...]


GIRLS = (
    "Lily", "Mia", "Anna", "Sara", "Rose", "Emma", "Zoe", "Lucy", "Ella", "Nina", "Ruby", "Clara", "Molly", "Amy",
    "Daisy", "Hannah", "Ivy", "Kate", "Lola", "Maya", "Grace", "Julia", "Alice", "Sophie", "Nora", "Eva", "Tina",
)  # fmt: skip
BOYS = (
    "Tom", "Ben", "Max", "Sam", "Leo", "Tim", "Jack", "Finn", "Oscar", "Noah", "Eli", "Hugo", "Peter", "Luke", "Adam",
    "Dan", "Henry", "Jake", "Nick", "Walter", "Oliver", "Paul", "Simon", "George", "Felix", "Toby", "Ryan",
)  # fmt: skip
TRAITS = ("little", "kind", "brave", "shy", "curious", "cheerful", "clever", "quiet", "gentle", "playful")
ELDERS = (("mom", "she"), ("dad", "he"), ("grandma", "she"), ("grandpa", "he"))
ANIMALS = (
    "cat", "dog", "rabbit", "duck", "bird", "mouse", "frog", "squirrel", "turtle", "kitten", "puppy", "hedgehog",
    "goat", "lamb", "fox", "pony", "parrot", "chick", "bunny", "raccoon",
)  # fmt: skip
SIZES = ("little", "small", "tiny", "fluffy", "brown", "gray", "white", "lost", "hungry", "young")
COLORS = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "white")
WEATHERS = ("sunny", "warm", "windy", "cloudy", "bright", "cool", "lovely")
HAPPY = ("happy", "glad", "proud", "cheerful", "very happy", "so happy", "full of joy")
SAD = ("sad", "upset", "worried", "very sad", "scared", "a little afraid")
TREATS = ("cake", "soup", "bread", "a cookie", "an apple", "some milk", "a warm pie", "some berries")

OPENING: Beat = (
    "Once upon a time, there was a {trait} {kid} named {name}.",
    "Once upon a time, a {trait} {kid} named {name} lived {home}.",
    "Once upon a time, there was a {kid} called {name}. {They} was very {trait2}.",
    "One day, a {trait} {kid} named {name} woke up early.",
    "One {weather} day, a {kid} named {name} went outside.",
    "There was once a {trait} {kid} whose name was {name}.",
)
TASTE: Beat = (
    "{name} loved to play {spot}.",
    "{name} liked to spend the day {spot} with {their} {elder}.",
    "Every day, {they} played {spot} with {their} friend {friend}.",
    "{Their} best friend was called {friend}.",
)
ENDING: Beat = (
    "{name} was {happy}. The end.",
    "From that day on, {name} and {friend} were the best of friends.",
    "{name} smiled all the way home. It had been a good day.",
    "That night, {name} went to bed {happy} and had sweet dreams.",
    "And they all lived happily ever after.",
    "{name} gave {their} {elder} a big hug and fell asleep with a smile.",
)
HOMES = ("in a small house", "by the sea", "near a big forest", "on a farm", "in a quiet town", "on top of a hill")
TOYS = ("ball", "kite", "toy car", "doll", "hat", "toy boat", "book", "teddy bear", "scarf", "drum", "balloon", "bell")
OUTSIDE = (
    "in the garden", "in the park", "near the river", "by the pond", "in the forest", "on the beach", "on the hill",
    "under the big tree", "in the yard", "behind the house",
)  # fmt: skip
INSIDE = ("in the kitchen", "in the living room", "in the bedroom", "at school", "in the attic", "at the library")

LOST_THING = Plot(
    places=OUTSIDE + INSIDE,
    things=TOYS,
    beats=(
        (
            "{Their} favorite toy was {a_thing}.",
            "{Their} {elder} had given {them} {a_thing}.",
            "{They} had {a_thing} and took it everywhere.",
        ),
        (
            "One {weather} morning, {name} could not find the {thing}.",
            "But one day, the {thing} was gone!",
            "One afternoon, {they} looked for the {thing}, but it was not there.",
        ),
        (
            "{They} looked under the bed and behind the door, but {they} did not see it.",
            "{They} felt {sad} and began to cry.",
            '"Where is my {thing}?" {they} asked. {They} was {sad}.',
        ),
        (
            '"Do not worry," said {their} {elder}. "Let us look for it together."',
            '{friend} saw that {name} was {sad}. "I will help you," {f_they} said.',
            '"Where did you play last?" asked {their} {elder}. {name} thought very hard.',
        ),
        (
            "They looked and looked {place}.",
            "So they walked slowly and looked at every spot {place}.",
            "Then {they} remembered playing {place}, so they all ran there.",
        ),
        (
            "There was the {thing}! {An_animal} was sleeping on it.",
            'At last, {friend} shouted, "I see it!" The {thing} was {place}.',
            "{An_animal} came and showed them where the {thing} was.",
        ),
        (
            '"Thank you!" said {name}. {They} held the {thing} very tight.',
            "{name} jumped up and down. {They} was {happy} to have the {thing} back.",
            "{name} hugged the {thing} and promised to take good care of it.",
        ),
    ),
)
SHARING = Plot(
    places=(*OUTSIDE, "at school", "in the living room"),
    things=(*TOYS, "bike", "swing", "truck", "puzzle"),
    beats=(
        (
            "One {weather} day, {they} got {a_thing} from {their} {elder}.",
            "On {their} birthday, {name} got {a_thing}. It was very pretty.",
        ),
        (
            "{They} took it with {them} to play {place}.",
            "{They} played with the {thing} {place} all morning.",
        ),
        (
            '{friend} came and asked, "May I play with your {thing}?"',
            'Then {friend} saw the {thing}. "Can I have a turn, please?" {f_they} asked.',
        ),
        (
            '"No, it is mine!" said {name}. {friend} was {sad} and walked away.',
            '{name} did not want to share. "No," {they} said. {friend} looked {sad}.',
        ),
        (
            "Soon {name} felt lonely. It was no fun to play alone.",
            "{name} played alone, but {they} did not feel good.",
            '{Their} {elder} said, "It is kind to share with your friends." {name} thought about it.',
        ),
        (
            '{They} ran to {friend} and said, "I am sorry. Let us play together."',
            'So {they} found {friend} and said, "You can play with my {thing} too."',
        ),
        (
            "{friend} smiled, and they took turns until the sun went down.",
            "They laughed and played with the {thing} all day long.",
            "The two friends played together, and it was much more fun.",
        ),
        (
            "{name} learned that sharing makes everyone happy.",
            "Now {name} knew that it is good to share.",
        ),
    ),
)
HURT_ANIMAL = Plot(
    places=OUTSIDE,
    things=("leaf", "basket", "box", "blanket", "branch"),
    beats=(
        (
            "One {weather} day, {name} went for a walk {place}.",
            "One day, {they} was playing {place} with {friend}.",
        ),
        (
            "{They} heard a soft sound. It was {an_animal}!",
            "Suddenly, {they} saw {an_animal} on the ground.",
            "Behind a big stone, {they} found {an_animal}.",
        ),
        (
            "The {animal} had hurt its leg and could not walk.",
            "The {animal} was cold and {sad}.",
            "The {animal} was all alone and could not find its mother.",
        ),
        (
            '"Poor little {animal}," said {name}. "I will help you."',
            '"Do not be scared," {name} said in a soft voice. "I am your friend."',
        ),
        (
            "{They} put the {animal} in a box and carried it home.",
            "{They} picked up the {animal} very carefully and took it to {their} {elder}.",
        ),
        (
            '{Their} {elder} said, "You did the right thing." They gave the {animal} {treat}.',
            "{Their} {elder} made a warm bed for the {animal}, and {name} gave it {treat}.",
        ),
        (
            "After a few days, the {animal} was strong again.",
            "Every day, the {animal} got a little better.",
        ),
        (
            "It was time to say goodbye. {name} was sad, but {they} knew the {animal} was happy.",
            "The {animal} stayed with {name}, and they played together every day.",
            "They took it back to its mother, and the {animal} jumped with joy.",
        ),
    ),
)
STORM = Plot(
    places=("in the bedroom", "in the living room", "in the kitchen", "under the bed"),
    things=("blanket", "lamp", "pillow", "teddy bear", "candle"),
    beats=(
        (
            "One night, there was a big storm. The wind was very loud.",
            "One evening, dark clouds came, and it began to rain.",
        ),
        (
            '"Boom!" went the thunder. {name} was {sad}.',
            "The thunder was so loud that the windows shook. {name} hid {place}.",
        ),
        (
            "{They} held {their} {thing} and called for {their} {elder}.",
            '"Please help me!" {they} cried. {They} held the {thing} very tight.',
        ),
        (
            '{Their} {elder} came and sat down next to {them}. "It is only a storm," {e_they} said.',
            '{Their} {elder} ran into the room. "You are safe with me," {e_they} said.',
        ),
        (
            "They sang a song together, and it made the storm seem small.",
            "{Their} {elder} told {them} a funny story about {an_animal}.",
            "They ate {treat} and counted the seconds after each flash of light.",
        ),
        (
            "Soon the rain stopped, and the moon came out.",
            "After a while, the storm went away, and all was quiet.",
        ),
        (
            '"I am not afraid of storms now," said {name}.',
            '"I was very brave," said {name}. "Yes, you were," said {their} {elder}.',
        ),
    ),
)
GARDEN = Plot(
    places=("in the garden", "behind the house", "in the yard", "on the hill", "next to the fence"),
    things=("flower", "apple tree", "carrot", "pumpkin", "rose", "sunflower", "tomato"),
    beats=(
        (
            "One day, {their} {elder} gave {them} a small seed.",
            "One {weather} day, {they} found a tiny seed {place}.",
        ),
        (
            '"What will it be?" {they} asked. "Wait and see," said {their} {elder}.',
            '"If you take care of it, it will grow," said {their} {elder}.',
        ),
        (
            "{name} dug a hole {place} and put the seed in it.",
            "{They} planted the seed {place} and covered it with soil.",
        ),
        (
            "Every morning, {they} gave it water, but nothing happened. {They} was {sad}.",
            "{They} waited for many days. {They} gave it water and sang to it.",
        ),
        (
            '"You must be patient," said {their} {elder}.',
            '{friend} came to help. "Let us pull the weeds," {f_they} said.',
        ),
        (
            "Then one morning, {they} saw a little green leaf!",
            "Then it rained, and the next day a green plant came up.",
        ),
        (
            "The plant grew and grew until it was {a_thing}.",
            "It grew taller and taller. It was {a_thing}, the prettiest of all!",
        ),
        (
            "Everyone came to look at the {thing}. {name} was {happy}.",
            '"Look what I did!" said {name}. {They} showed the {thing} to {friend}.',
        ),
    ),
)
LEARNING = Plot(
    places=("in the park", "in the yard", "on the beach", "on the hill", "near the lake", "at school"),
    things=("bike", "kite", "skateboard", "sled", "jump rope", "scooter"),
    beats=(
        (
            "{name} had {a_thing}, but {they} did not know how to use it.",
            "One day, {their} {elder} gave {them} {a_thing}. {name} wanted to try it at once.",
        ),
        (
            "{They} took the {thing} and tried it {place}, but {they} fell down.",
            "{They} tried and tried {place}, but it was too hard.",
        ),
        (
            '"I can not do it!" {they} said. {They} was {sad}.',
            "{They} wanted to give up and go home. {They} felt {sad}.",
        ),
        (
            '{friend} said, "I fell down many times too. Try again!"',
            '{Their} {elder} helped {them} up and said, "You only need to practice."',
        ),
        (
            "So {name} took a deep breath and tried again.",
            "The next day, {name} tried again, and {they} did a little better.",
        ),
        (
            "{They} practiced every day after school.",
            "Again and again {they} tried, and {they} did not stop.",
        ),
        (
            'At last, {they} did it! "Look at me!" {they} shouted.',
            'Then it worked! "I did it! I did it!" {they} called.',
        ),
        (
            "{Their} {elder} and {friend} clapped their hands.",
            '"I knew you could do it," said {their} {elder}.',
        ),
    ),
)
ACCIDENT = Plot(
    places=INSIDE,
    things=("cup", "vase", "plate", "clock", "lamp", "bowl", "picture"),
    beats=(
        (
            "{Their} {elder} had {a_thing} and loved it very much.",
            "There was {a_thing} {place}. It was very old and pretty.",
        ),
        (
            "One day, {name} was running {place} with {friend}.",
            "One day, {they} played with a ball {place}.",
        ),
        (
            "Crash! The {thing} fell down and broke.",
            "Oh no! {They} hit the {thing}, and it broke into many pieces.",
        ),
        (
            "{name} was {sad}. {They} did not want to tell {their} {elder}.",
            "{They} hid the pieces under the rug, but {they} felt {sad}.",
        ),
        (
            '"You should tell the truth," said {friend}.',
            "All day long, {they} could not play or eat {treat}.",
        ),
        (
            'So {name} went to {their} {elder} and said, "I broke the {thing}. I am sorry."',
            'At last, {they} told {their} {elder}, "It was me. I broke your {thing}."',
        ),
        (
            '"Thank you for telling me the truth," said {their} {elder}. {They_e} was not angry.',
            '{Their} {elder} hugged {them} and said, "It was only {a_thing}. You are more important."',
        ),
        (
            "They fixed the {thing} together with glue.",
            "They cleaned the floor together, and {name} felt much better.",
        ),
        (
            "{name} learned that it is best to tell the truth.",
            "After that, {name} never ran in the house again.",
        ),
    ),
)
TREASURE = Plot(
    places=(*OUTSIDE, "in the cave", "on the island"),
    things=("box", "bag", "key", "shell", "stone", "coin", "map", "bottle"),
    beats=(
        (
            "One {weather} day, {name} and {friend} went to look for treasure {place}.",
            'One day, {friend} said, "Let us go on an adventure {place}!" {name} said yes.',
        ),
        (
            "They packed {treat} and a big bag.",
            "They walked for a long time and crossed a small bridge.",
        ),
        (
            "On the way, they met {an_animal}. It seemed to want to show them something.",
            "Then {an_animal} ran past them, and they followed it.",
        ),
        (
            "They went under a bush and over a big rock. {friend} was tired.",
            'It got dark, and {friend} was {sad}. "Take my hand," said {name}.',
        ),
        (
            "Then {name} saw something shiny. It was {a_thing}!",
            "There, under the leaves, they found {a_thing}!",
        ),
        (
            '"What a pretty {thing}!" said {friend}. "Whose is it?"',
            '"We found a treasure!" they shouted.',
        ),
        (
            "They gave {treat} to the {animal} to thank it.",
            "The {animal} looked at them and then ran away into the trees.",
        ),
        (
            "They took the {thing} home and showed it to {their} {elder}.",
            "At home, {their} {elder} put the {thing} on the table so that all could see it.",
        ),
    ),
)
COOKING = Plot(
    places=("in the kitchen", "at the big table", "in the garden"),
    things=("cake", "pie", "pizza", "pot of soup", "pancake", "salad"),
    beats=(
        (
            "It was the birthday of {their} friend {friend}. {name} wanted to make {a_thing}.",
            'One {weather} day, {their} {elder} asked, "Shall we make {a_thing}?" {name} said yes.',
        ),
        (
            "They put on their aprons and washed their hands.",
            "First, they went to the shop to buy eggs, milk, and flour.",
        ),
        (
            "{name} mixed everything in a big bowl, and {their} {elder} helped {them}.",
            '"Be careful, it is hot," said {their} {elder}. {name} listened.',
        ),
        (
            "But {name} put in salt and not sugar! It tasted bad.",
            "But then {an_animal} came in and ate some of it!",
            "But the bowl fell, and there was food all over the floor.",
        ),
        (
            "{name} was {sad}. All the work was for nothing.",
            '"Oh no!" said {name}. {They} felt {sad}.',
        ),
        (
            '"That is okay," said {their} {elder}. "We can make a new one."',
            '{Their} {elder} laughed. "Let us clean up and start again," {e_they} said.',
        ),
        (
            "This time, the {thing} was perfect. It smelled so good!",
            "They worked hard, and soon the new {thing} was ready.",
        ),
        (
            '{friend} took a big bite. "This is the best {thing} ever!" {f_they} said.',
            "They ate the {thing} together {place}, and {friend} asked for more.",
        ),
    ),
)
NEW_FRIEND = Plot(
    places=(*OUTSIDE, "at school", "at the library"),
    things=TOYS,
    beats=(
        (
            "{name} had moved to a new town and did not know anyone.",
            "It was {their} first day at a new school, and {they} was {sad}.",
        ),
        (
            "{They} sat alone {place} with {a_thing}.",
            "{They} wanted to play {place}, but {they} was too shy to ask.",
        ),
        (
            'Then a {f_kid} came up to {them}. "Hello, I am {friend}," {f_they} said.',
            "Then {they} saw a {f_kid} who was alone too. {Their_f} name was {friend}.",
        ),
        (
            '"Do you like my {thing}?" asked {name}. "Yes, I do!" said {friend}.',
            '"Would you like to play with me?" asked {friend}. {name} nodded.',
        ),
        (
            "They played hide and seek {place}. {friend} hid behind a tree.",
            "They ran, jumped, and watched {an_animal} {place}.",
            "They sat down and shared {treat}.",
        ),
        (
            'When it was time to go home, {friend} asked, "Will you come again tomorrow?"',
            '"I had so much fun," said {friend}. "Let us play again tomorrow."',
        ),
        (
            '"Yes!" said {name}. {They} was not alone anymore.',
            "{name} ran home and told {their} {elder} about {their} new friend.",
        ),
    ),
)
SNOW = Plot(
    places=("in the garden", "in the yard", "on the hill", "in front of the house", "in the park"),
    things=("snowman", "snow castle", "snow bear", "snow horse"),
    beats=(
        (
            "One winter morning, {name} looked out of the window. Everything was white!",
            '"It is snowing!" {name} shouted, and {they} ran to the window.',
        ),
        (
            "{They} put on {their} warm coat, boots, and gloves.",
            '"Wear your coat and your gloves," said {their} {elder}.',
        ),
        (
            "{name} and {friend} made {a_thing} {place}.",
            '"Let us build {a_thing} {place}," said {friend}.',
        ),
        (
            "They gave it a carrot for a nose and two stones for eyes.",
            "They rolled the snow into big balls until their hands were cold.",
        ),
        (
            "But then {an_animal} jumped on the {thing}, and it fell apart!",
            "But the sun came out, and the {thing} began to melt. {name} was {sad}.",
        ),
        (
            '"We can build it again," said {friend}. "It will be even bigger!"',
            '"Snow always comes back," said {their} {elder} with a smile.',
        ),
        (
            "They worked until the new {thing} was as tall as {their} {elder}.",
            "The next day, more snow fell, and they made the {thing} again.",
        ),
        (
            "Then they went inside and drank hot chocolate by the fire.",
            "{Their} {elder} took a photo of {name}, {friend}, and the {thing}.",
        ),
    ),
)
BOAT = Plot(
    places=("on the lake", "on the river", "near the island", "by the old bridge"),
    things=("boat", "raft", "canoe", "ship"),
    beats=(
        (
            "{Their} {elder} had {a_thing}, and {name} dreamed of going out in it.",
            'One {weather} summer day, {their} {elder} said, "Come with me in the {thing}!"',
        ),
        (
            "They sailed {place}, and {friend} came along too.",
            "{friend} held the rope, and {name} looked at the waves {place}.",
        ),
        (
            "They saw silver fish jumping out of the water.",
            "A big bird flew over their heads and sang.",
        ),
        (
            "Suddenly, the wind blew hard, and the {thing} began to shake.",
            "Then there was a hole in the {thing}, and water came in!",
        ),
        (
            '"Help! We will sink!" cried {friend}. {name} was {sad} too.',
            "{name} held on tight and closed {their} eyes.",
        ),
        (
            '"Stay calm and do what I say," said {their} {elder}.',
            "But {name} had an idea. {They} took a bucket and threw the water out.",
        ),
        (
            "Together they pulled the {thing} back to land.",
            "They rowed and rowed until they reached the shore.",
        ),
        (
            '"What an adventure!" said {friend}, and they all laughed.',
            "They dried their clothes in the sun and ate {treat}.",
        ),
    ),
)
MONSTER = Plot(
    places=("under the bed", "in the closet", "behind the curtain", "in the attic", "behind the door"),
    things=("flashlight", "pillow", "broom", "blanket", "spoon"),
    beats=(
        (
            "One night, {name} woke up. There was a strange noise {place}.",
            "{name} could not sleep. Something moved {place}!",
        ),
        (
            '"It must be a monster," {they} whispered. {They} was {sad}.',
            "{They} thought that a monster with big teeth lived there.",
        ),
        (
            "{They} took {a_thing} and got out of bed on {their} toes.",
            "{They} hid under the covers, but the noise did not stop.",
        ),
        (
            '{They} called {their} {elder}. "There is a monster {place}!" {they} said.',
            "{They} ran to wake up {their} {elder}, who was snoring.",
        ),
        (
            '"Let us look together," said {their} {elder} and took the {thing}.',
            '"There are no monsters here," said {their} {elder}. "But we can check."',
        ),
        (
            "They looked {place}, and what did they find? It was only {an_animal}!",
            "Slowly, slowly, they looked {place}. {An_animal} looked back at them!",
        ),
        (
            "The {animal} was more afraid than {name}. They both jumped!",
            '"You are a very small monster," said {name} to the {animal}.',
        ),
        (
            "They gave the {animal} {treat}, and it slept at the foot of the bed.",
            "They opened the window, and the {animal} went back outside.",
        ),
    ),
)
NEIGHBOR = Plot(
    places=("on the street", "next to the bakery", "at the market", "near the bus stop", "across the road"),
    things=("bag", "basket", "suitcase", "box", "cart"),
    beats=(
        (
            "One {weather} day, {name} saw an old woman {place}.",
            "An old neighbor lived alone in the house across the road. {name} met her {place}.",
        ),
        (
            "She carried a heavy {thing} and walked very slowly.",
            "Her {thing} broke, and all her oranges rolled away.",
        ),
        (
            "Many people walked past and did not stop.",
            '{friend} said, "We are late for the game. Let us go!"',
        ),
        (
            'But {name} stopped. "Can I help you?" {they} asked.',
            '"Wait," said {name}. "First, we must help her."',
        ),
        (
            "{name} and {friend} picked up everything and carried the {thing} to her house.",
            "{They} took the {thing} with both hands. It was hard, but {they} did not complain.",
        ),
        (
            '"What good children you are!" said the old woman. She gave them {treat}.',
            '"Thank you so much," said the old woman. "You have a big heart."',
        ),
        (
            "She told them stories about the time when she was young.",
            "She had {an_animal}, and they were allowed to pet it.",
        ),
        (
            "After that, {name} visited her every week.",
            "{name} told {their} {elder} about it at dinner. Helping had made {them} {happy}.",
        ),
    ),
)
PAINTING = Plot(
    places=("at school", "in the kitchen", "in the garden", "in the living room"),
    things=("rainbow", "castle", "house", "dragon", "train", "butterfly", "rocket"),
    beats=(
        (
            "{name} loved to paint. {They} had brushes and paper in every color.",
            'One {weather} day, the teacher said, "Today we will paint!" {name} could not wait.',
        ),
        (
            "{They} sat {place} and wanted to paint {a_thing}.",
            '"I will paint {a_thing} for my {elder}," {they} said.',
        ),
        (
            "But {they} had no more {color} paint. {They} was {sad}.",
            "But {an_animal} ran over the paper with wet feet!",
        ),
        (
            '"Now my picture is ruined," {they} said with tears in {their} eyes.',
            "{They} wanted to throw the picture away.",
        ),
        (
            '"Wait!" said {friend}. "I have an idea. You can mix the colors."',
            '{friend} looked at it. "I think it is beautiful," {f_they} said.',
        ),
        (
            "They mixed and mixed, and the paper became full of bright colors.",
            "{name} added some stars and a yellow sun. Now it looked like magic.",
        ),
        (
            "It was the most beautiful {thing} that anyone had seen.",
            "The {thing} seemed to smile at them from the paper.",
        ),
        (
            "{Their} {elder} hung the picture on the wall.",
            '"You are a real artist!" said {their} {elder}.',
        ),
    ),
)
RACE = Plot(
    places=("in the forest", "in the meadow", "on the beach", "around the lake", "up the mountain"),
    things=("medal", "cup", "ribbon", "crown", "prize"),
    beats=(
        (
            "One {weather} day, there was a big race {place}. The winner would get {a_thing}.",
            "Every spring, the children ran a race {place} to win {a_thing}.",
        ),
        (
            '"I am the fastest," said {friend}. "I will win!"',
            "{name} was not very fast, but {they} wanted to try.",
        ),
        (
            '"Ready, steady, go!" called {their} {elder}, and everyone started to run.',
            "The whistle blew, and off they went.",
        ),
        (
            "{friend} ran in front like the wind. {name} came last.",
            "{name} ran as fast as {their} legs could carry {them}.",
        ),
        (
            "Then {friend} tripped over a root and fell. {Their_f} knee hurt.",
            "Suddenly, {friend} stopped and sat down. {Their_f} shoe was torn.",
        ),
        (
            "{name} could have passed and won, but {they} stopped to help.",
            '"Hold on to me," said {name}. "We will finish together."',
        ),
        (
            "Arm in arm, they crossed the line. Everybody cheered!",
            "They came in last, but all the people clapped for them.",
        ),
        (
            '{Their} {elder} gave them both the {thing}. "Kindness wins too," {e_they} said.',
            "{friend} gave the {thing} to {name}, and {name} was {happy}.",
        ),
    ),
)
PLOTS = (
    LOST_THING,
    SHARING,
    HURT_ANIMAL,
    STORM,
    GARDEN,
    LEARNING,
    ACCIDENT,
    TREASURE,
    COOKING,
    NEW_FRIEND,
    SNOW,
    BOAT,
    MONSTER,
    NEIGHBOR,
    PAINTING,
    RACE,
)


def tell_stories(count: int, seed: int) -> list[str]:
    """Tells `count` stories; the first n of them do not depend on `count`.

    Args:
        count: How many, 0 or more.
        seed: Any integer; another seed gives other stories.

    Returns:
        One string a story, without a line break.
    """
    rng = random.Random(seed)
    return [_tell(rng) for _ in range(count)]


def _tell(rng: random.Random) -> str:
    plot = _pick(rng, PLOTS)
    fields = _cast(rng) | _props(rng, plot)
    beats = [OPENING, *plot.beats, ENDING]
    if plot is not NEW_FRIEND:  # there the friend is not yet known at the start
        beats.insert(1, TASTE)
    return " ".join(_pick(rng, beat).format_map(fields) for beat in beats)


def _cast(rng: random.Random) -> dict[str, str]:
    """Draws hero, friend and elder, with their pronouns."""
    is_girl, friend_is_girl = rng.random() < 0.5, rng.random() < 0.5
    name = _pick(rng, GIRLS if is_girl else BOYS)
    friend = _pick(rng, [other for other in (GIRLS if friend_is_girl else BOYS) if other != name])
    elder, elder_pronoun = _pick(rng, ELDERS)
    they, them, their = ("she", "her", "her") if is_girl else ("he", "him", "his")
    return {
        "name": name,
        "kid": "girl" if is_girl else "boy",
        "they": they,
        "They": they.capitalize(),
        "them": them,
        "their": their,
        "Their": their.capitalize(),
        "friend": friend,
        "f_kid": "girl" if friend_is_girl else "boy",
        "f_they": "she" if friend_is_girl else "he",
        "Their_f": "Her" if friend_is_girl else "His",
        "elder": elder,
        "e_they": elder_pronoun,
        "They_e": elder_pronoun.capitalize(),
    }


def _props(rng: random.Random, plot: Plot) -> dict[str, str]:
    """Draws what is not a person: place, thing, animal, weather and moods."""
    thing, animal = _pick(rng, plot.things), _pick(rng, ANIMALS)
    trait = _pick(rng, TRAITS)
    an_animal = f"a {_pick(rng, SIZES)} {animal}"
    is_colored = plot not in (GARDEN, COOKING, SNOW, RACE) and rng.random() < 0.6
    described = f"{_pick(rng, COLORS)} {thing}" if is_colored else thing
    return {
        "place": _pick(rng, plot.places),
        "spot": _pick(rng, OUTSIDE),
        "home": _pick(rng, HOMES),
        "thing": thing,
        "a_thing": f"{'an' if described[0] in 'aeiou' else 'a'} {described}",
        "animal": animal,
        "an_animal": an_animal,
        "An_animal": an_animal.capitalize(),
        "trait": trait,
        "trait2": _pick(rng, [other for other in TRAITS if other not in (trait, "little")]),
        "color": _pick(rng, COLORS),
        "weather": _pick(rng, WEATHERS),
        "happy": _pick(rng, HAPPY),
        "sad": _pick(rng, SAD),
        "treat": _pick(rng, TREATS),
    }


def _pick(rng: random.Random, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]
