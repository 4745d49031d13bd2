"""Words that the stub's embeddings take for one: what stands for a model that knows what words mean.

Made for the questions in `bench.needles` that ask in other words than the fact was told in: what is measured
with it is what recall by meaning can do with a model that understands them, not what a given model does.
"""

import re

_GROUPS = (
    "dog dogs puppy hound 狗 小狗 汪星人",
    "called call name named christen christened nickname 名字 取名 叫做 起名",
    "sister sibling 妹妹 家里的小女儿",
    "city town 城市 地方",
    "moved lives live relocated settled home 搬到 住 定居 落脚",
    "allergic intolerant react 过敏 起疹子",
    "mum mother mummy 妈 妈妈 母亲",
    "birthday born 生日 出生",
    "bike bicycle 自行车 单车",
    "code combination digits 密码 数字",
    "lock unlock locked 锁 打开",
    "book novel story 书 作品",
    "favourite love adore most 最喜欢 最爱",
    "studied major degree 读 专业 主修",
    "university college campus 大学 本科",
    "child little kid childhood 小时候 童年",
    "played lessons practise music musical 练 乐器 音乐",
    "parents folks 爸妈 父母",
    "concert gig show 演唱会 现场",
    "first earliest debut 第一次 头一回",
    "grandma granny gran 奶奶 祖母",
    "stew casserole 炖肉 红烧",
    "secret ingredient hidden hides 秘方 秘密 独门",
    "grandpa granddad grandfather 爷爷 祖父",
    "honeymoon newlyweds wedding 蜜月 新婚",
    "flying travel trip booked 飞 旅行 定下来",
    "signed enrolled registered 报名 登记",
    "spring april 春天 开春",
    "boss manager superior 老板 上司",
    "new latest 新 新来的",
    "bedroom sleep sleeping 卧室 睡觉",
    "painted paint shade colour coat 刷 涂 颜色",
    "dad father daddy 爸 爸爸 父亲",
    "retired retirement pension 退休 养老",
    "job living profession earn 工作 职业 谋生",
    "school pupil classroom 学校 上学 念书",
    "medal prize award 奖牌 获奖",
    "team sport game 队 运动 体育",
    "floor storey level 楼 层",
    "lift elevator 电梯 升降梯",
    "kindergarten preschool nursery 幼儿园 学前班",
    "friend close inseparable pal 朋友 要好 形影不离",
    "landlord owner letting 房东 出租人",
)
_CONCEPTS = {word: f"concept{at}" for at, group in enumerate(_GROUPS) for word in group.split()}
_WORDS = re.compile(
    "|".join(
        rf"\b{word}\b" if word.isascii() else word
        for word in sorted(_CONCEPTS, key=lambda word: (-len(word), word))
    )
)


def concepts(text: str) -> tuple[list[str], str]:
    """The groups of the words of a text in lower case, and what is left of it."""
    found = [_CONCEPTS[one] for one in _WORDS.findall(text)]
    return found, _WORDS.sub(" ", text)
