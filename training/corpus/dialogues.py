"""The written conversations: short exchanges of two people about everyday matters.

Two lines make an exchange, one of each person: `mood: what they say`.  All sentences are our own
and all are different; training and test sentences are separate lists.
"""

from __future__ import annotations

from dataclasses import dataclass

EMOTIONS = ("neutral", "happy", "sad", "surprised")

_TRAIN_LINES = """
happy: Good morning! You look like you slept well.
happy: I did, for once. The new pillow makes a big difference.

neutral: Did the plumber come by this morning?
neutral: He came at nine and fixed the pipe below the sink.

sad: My bicycle was taken from the front of the shop.
sad: Oh no, I am so sorry. You loved that bike.

surprised: Wait, you finished the whole puzzle?
happy: Every single piece, and it only took me four days.

neutral: Which bus goes to the old market?
neutral: Number seven does, but it leaves every half an hour.

happy: My sister had her baby last night!
surprised: Really? That is weeks before you expected it.

sad: I think the plant by the window is dying.
neutral: Maybe it gets too much water. Let it dry for a while.

neutral: What should we cook for the family on Sunday?
happy: A big pot of mushroom soup, please. Everybody asks for it.

happy: The pool opens again on Friday, and I bought two passes.
happy: Wonderful! I will bring my blue towel and some fruit.

sad: They cancelled the concert because of the storm.
sad: What a pity. We waited half a year for that evening.

surprised: You painted the kitchen yellow?
happy: Why not? It feels bright even before breakfast now.

neutral: Could you move your car a few feet back?
neutral: Of course. Give me a moment to find my keys.

happy: I passed my driving test on the first try!
happy: Fabulous! We must go for a ride by the river.

sad: Grandpa forgot my name again this afternoon.
sad: That must hurt. He still smiled when you held his hand.

neutral: How far is the beach from your house?
neutral: About five miles. Most people take the small ferry.

surprised: There is a fox in our garden!
surprised: Where? Oh, it is sitting behind the apple tree.

neutral: My phone battery barely makes it to noon.
neutral: Mine was the same before I replaced it in March.

happy: Mum is making her pepper bread tonight.
happy: Perfect, I could smell it from the bottom of the street.

sad: I did not get the job at the museum.
sad: I am sorry. They missed out on somebody very good.

neutral: Have you seen my brown boots anywhere?
neutral: They are under the bench, beside the broom.

happy: We saw whales from the boat, a whole family of them.
surprised: So close to the harbour? I have never heard of that.

surprised: This melon cost nine pounds!
neutral: Put it back, then. We can buy plums and pears instead.

neutral: Do you want the window open or shut?
neutral: Open, please. It becomes warm in here by midday.

sad: The bakery on our corner is closing for good.
sad: That makes me sad. I bought bread there as a child.

happy: My team finally won a match, five to two.
happy: About time! You boys have practised so hard.

neutral: What time does the library close on Thursdays?
neutral: I believe it is open until eight in the evening.

happy: Look, the first snow of the year!
happy: Beautiful. Put your gloves on and let us go out.

sad: I dropped the cup that my aunt gave me.
neutral: We can glue the handle. I have done it before.

surprised: You speak Polish? Since when?
happy: My neighbour has been teaching me over coffee.

neutral: The printer is making that odd noise again.
neutral: Open the flap and pull the paper out slowly.

happy: I found a box of our old photographs.
happy: Show me! Is the one with the muddy puppy there?

sad: Ben is moving to the other side of the country.
sad: You two have been friends for so long. I feel for you.

neutral: Shall we meet at the bridge or at the pub?
neutral: The bridge is better. From there we can walk up the path.

happy: This jam tastes exactly like summer.
happy: Thank you, I picked the berries by myself.

surprised: The whole meeting lasted only five minutes?
happy: Yes, for the first time ever we all agreed.

neutral: I need a stamp for this letter to Brazil.
neutral: Try the top drawer, below the envelopes.

sad: My back has been aching since the weekend.
neutral: You should lie down and put something warm on it.

happy: Our puppy learned how to give a paw.
happy: How clever! My cat only learned how to open doors.

neutral: Is the museum free for students?
neutral: It is, if you bring a card with your picture.

surprised: Somebody left flowers on my desk!
happy: Maybe it was Paul. He always remembers birthdays.

sad: We had to sell the farm in the end.
sad: After all those years of work. That is hard to hear.

neutral: The map says turn left after the chapel.
neutral: I would rather follow the stream, it is prettier.

happy: I signed us up for the pottery class.
surprised: Both of us? I have never made a pot in my life!

neutral: Would you mind feeding my fish next week?
happy: Not at all, I like watching them swim about.

sad: The rain ruined all of my tomatoes.
sad: Mine too. There is hardly one left on the vine.

happy: Happy birthday! I hope you like the scarf.
happy: It is lovely and so soft. Green is my favourite colour.

neutral: How many people are coming for lunch?
neutral: Seven, maybe eight, if Rebecca brings her brother.

surprised: The museum wants to buy your painting?
happy: They phoned me today! I am still shaking.

neutral: My shift begins before the sun comes up.
neutral: Then you must be home by early afternoon.

sad: I miss the smell of my mother's kitchen.
sad: I know what you mean. Some things you never forget.

happy: We are going camping by the lake in August.
happy: Take warm blankets. The nights up there are cold.

neutral: What did the doctor say about your knee?
neutral: She says I may run again in about a month.

surprised: It takes four hours to make this sauce?
neutral: Yes, but most of that time it just simmers.

happy: Guess who met us at the airport!
surprised: No! Do not tell me it was your brother.

sad: Nobody came to the reading last night.
sad: That is a shame. Your poems deserve to be heard.

neutral: Please put the milk back in the fridge.
neutral: I will, as soon as I have made my porridge.

happy: The children built a boat out of boxes.
happy: I saw it! They even made a pirate flag.

neutral: Which film do you want to watch tonight?
neutral: Anything but a horror movie. I want to sleep after it.

surprised: My old teacher wrote me a letter!
happy: After so many years? What a lovely thing to do.

sad: The vet could not help our rabbit.
sad: Oh, I am very sorry. Give the children my love.

happy: This is the best pumpkin pie I ever ate.
happy: Have another piece before Robert comes back.

neutral: There is a queue outside the post office.
neutral: Let us come back after four, it will be empty.

surprised: You walked all the way from the valley?
neutral: The bus broke down, so I had no choice.

happy: My daughter said her first word today!
happy: How sweet! Was it mama or papa?

neutral: Should I bring an umbrella this evening?
neutral: Better bring one. The clouds are very low.

sad: I feel a bit lonely in this big flat.
neutral: Come over for supper. We always have enough food.
"""

_TEST_LINES = """
happy: Welcome back! How were the mountains?
happy: Marvellous. We hiked above the clouds every day.

neutral: Can you help me carry this table upstairs?
neutral: Sure, but let us take the lamp off it first.

sad: I lost my grandmother's ring on the train.
sad: How awful. Perhaps an honest person will find it.

surprised: The price dropped by half overnight?
happy: It did, so I bought two of them for the office.

neutral: What is the name of that tiny purple flower?
neutral: I believe we call it a bellflower around here.

happy: Our choir will perform at the palace!
surprised: At the palace? In front of thousands of people?

sad: The doctor told me to give up football.
sad: I can imagine how you feel. You live for the game.

neutral: My train leaves from platform five.
neutral: Then you have to cross the footbridge over there.

happy: I baked far too many muffins for us two.
happy: Impossible. Pass me the plate and some butter.

surprised: You have never tasted a mango?
neutral: Never. Where I come from we mostly grow apples.

sad: Nobody remembered that I was waiting.
sad: Please forgive me. I should have phoned you.

neutral: The map shows a shortcut behind the mill.
neutral: Fine by me, as long as the path is not muddy.

happy: The puppies opened their eyes this morning!
happy: May I come over and visit them before supper?

neutral: When do the evening classes begin?
neutral: In the first week of February, if I am not wrong.
"""


@dataclass(frozen=True)
class Line:
    """What one person says in one turn, and in which mood (one of EMOTIONS)."""

    emotion: str
    text: str


Exchange = tuple[Line, Line]


def _parse(lines: str) -> tuple[Exchange, ...]:
    exchanges = []
    for block in lines.strip().split("\n\n"):
        first, second = (Line(*row.split(": ", 1)) for row in block.splitlines())
        exchanges.append((first, second))
    return tuple(exchanges)


EXCHANGES: dict[str, tuple[Exchange, ...]] = {
    "train": _parse(_TRAIN_LINES),
    "test": _parse(_TEST_LINES),
}
