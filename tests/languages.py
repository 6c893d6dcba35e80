"""Prose in seven languages, made at random from phrases, for tests of words and near-duplicates."""

import random

# Who, when and where, what they do: 10 each.
PHRASES = {
    "English": (
        "my neighbour|the old teacher|a young engineer|her brother|the shopkeeper|our doctor|a tired traveller|"
        "the new mayor|their grandmother|a careful reader",
        "yesterday evening|in the small library|near the harbour|before the long winter|during the market|"
        "after the heavy rain|at the station|on a quiet Sunday|behind the school|while walking home",
        "found a letter that nobody had opened|repaired the broken clock with great patience|"
        "told us about the river of his childhood|bought fresh bread and two bottles of milk|"
        "wrote down everything she remembered|asked whether the train would arrive on time|"
        "planted apple trees along the narrow road|listened to music from another country|"
        "lost the key to the wooden house|painted the kitchen in a bright colour",
    ),
    "Chinese": (
        "我的邻居|那位老教师|年轻的工程师|她的哥哥|商店老板|我们的医生|疲倦的旅客|新任市长|他们的祖母|细心的读者",
        "昨天晚上|在小图书馆里|在港口附近|漫长的冬天之前|赶集的时候|大雨过后|在火车站|安静的星期天|学校后面|走路回家时",
        "发现了一封没有人打开过的信|耐心地修好了坏掉的钟|给我们讲了童年的那条河|买了新鲜的面包和两瓶牛奶|"
        "把记得的事情全都写了下来|询问列车会不会准时到达|沿着狭窄的道路种了苹果树|听了来自另一个国家的音乐|"
        "丢了木头房子的钥匙|把厨房漆成了明亮的颜色",
    ),
    "Japanese": (
        "隣の人は|年老いた先生は|若い技術者は|彼女の兄は|店の主人は|私たちの医者は|疲れた旅人は|新しい市長は|"
        "祖母は|注意深い読者は",
        "昨日の夜|小さな図書館で|港の近くで|長い冬の前に|市場の間に|大雨の後で|駅で|静かな日曜日に|"
        "学校の裏で|歩いて帰る途中で",
        "誰も開けなかった手紙を見つけた|壊れた時計を根気よく直した|子供の頃の川について話してくれた|"
        "新しいパンと牛乳を二本買った|覚えていることを全部書き留めた|電車が時間通りに着くかどうか尋ねた|"
        "細い道に沿ってりんごの木を植えた|別の国の音楽を聴いた|木の家の鍵をなくした|台所を明るい色に塗った",
    ),
    "Thai": (
        "เพื่อนบ้านของฉัน|ครูชราคนนั้น|วิศวกรหนุ่ม|พี่ชายของเธอ|เจ้าของร้าน|หมอของเรา|"
        "นักเดินทางที่เหนื่อยล้า|นายกเทศมนตรีคนใหม่|คุณยายของพวกเขา|ผู้อ่านที่รอบคอบ",
        "เมื่อวานตอนเย็น|ในห้องสมุดเล็กๆ|ใกล้ท่าเรือ|ก่อนฤดูหนาวอันยาวนาน|ระหว่างตลาดนัด|หลังฝนตกหนัก|"
        "ที่สถานีรถไฟ|ในวันอาทิตย์ที่เงียบสงบ|หลังโรงเรียน|ขณะเดินกลับบ้าน",
        "พบจดหมายที่ไม่มีใครเปิดอ่าน|ซ่อมนาฬิกาที่เสียด้วยความอดทน|เล่าเรื่องแม่น้ำในวัยเด็กให้เราฟัง|"
        "ซื้อขนมปังสดกับนมสองขวด|"
        "จดทุกอย่างที่จำได้|ถามว่ารถไฟจะมาตรงเวลาหรือไม่|ปลูกต้นแอปเปิลตามถนนแคบ|ฟังเพลงจากประเทศอื่น|"
        "ทำกุญแจบ้านไม้หาย|ทาสีห้องครัวให้สดใส",
    ),
    "Korean": (
        "우리 이웃은|나이 든 선생님은|젊은 기술자는|그녀의 오빠는|가게 주인은|우리 의사는|지친 여행자는|"
        "새 시장은|그들의 할머니는|꼼꼼한 독자는",
        "어제 저녁에|작은 도서관에서|항구 근처에서|긴 겨울이 오기 전에|장이 서는 동안|큰비가 온 뒤에|"
        "기차역에서|조용한 일요일에|학교 뒤에서|집으로 걸어가다가",
        "아무도 열지 않은 편지를 찾았다|고장 난 시계를 참을성 있게 고쳤다|어린 시절의 강에 대해 이야기했다|"
        "신선한 빵과 우유 두 병을 샀다|기억나는 모든 것을 적어 두었다|기차가 제시간에 오는지 물었다|"
        "좁은 길을 따라 사과나무를 심었다|다른 나라의 음악을 들었다|나무 집의 열쇠를 잃어버렸다|"
        "부엌을 밝은 색으로 칠했다",
    ),
    "Arabic": (
        "جارنا الطيب|المعلم العجوز|مهندسة شابة|أخوها الأكبر|صاحب المتجر|طبيبنا|مسافر متعب|"
        "رئيس البلدية الجديد|جدتهم|قارئ حريص",
        "مساء أمس|في المكتبة الصغيرة|قرب الميناء|قبل الشتاء الطويل|أثناء السوق|بعد المطر الغزير|في المحطة|"
        "في يوم أحد هادئ|خلف المدرسة|في الطريق إلى البيت",
        "وجد رسالة لم يفتحها أحد|أصلح الساعة المعطلة بصبر كبير|حدثنا عن نهر طفولته|اشترى خبزا طازجا وزجاجتي حليب|"
        "كتب كل ما يتذكره|سأل هل يصل القطار في موعده|زرع أشجار التفاح على طول الطريق الضيق|"
        "استمع إلى موسيقى من بلد آخر|أضاع مفتاح البيت الخشبي|دهن المطبخ بلون فاتح",
    ),
    "German": (
        "mein Nachbar|die alte Lehrerin|ein junger Ingenieur|ihr Bruder|der Ladenbesitzer|unsere Hausärztin|"
        "ein müder Reisender|die neue Bürgermeisterin|ihre Großmutter|ein aufmerksamer Leser",
        "hat gestern Abend|hat in der kleinen Bibliothek|hat beim Hafen|hat vor dem langen Winter|hat am Markttag|"
        "hat nach dem Regen|hat am Bahnhof|hat an einem stillen Sonntag|hat hinter der Schule|hat auf dem Heimweg",
        "einen Brief gefunden, den niemand geöffnet hatte|die kaputte Uhr mit großer Geduld repariert|"
        "vom Fluss seiner Kindheit erzählt|frisches Brot und zwei Flaschen Milch gekauft|alles aufgeschrieben|"
        "gefragt, ob der Zug pünktlich ankommt|Apfelbäume entlang der schmalen Straße gepflanzt|"
        "Musik aus einem anderen Land gehört|den Schlüssel zum Holzhaus verloren|die Küche hell gestrichen",
    ),
}
WITHOUT_SPACES = ("Chinese", "Japanese", "Thai")


def prose(language, texts, characters=200):
    """Random texts of exactly ``characters`` characters."""
    rng = random.Random(language)
    parts = [part.split("|") for part in PHRASES[language]]
    gap, stop = ("", "。") if language in ("Chinese", "Japanese") else ("", " ") if language == "Thai" else (" ", ". ")

    def text():
        written = ""
        while len(written) < characters:
            written += gap.join(rng.choice(part) for part in parts) + stop
        return written[:characters]

    return [text() for _ in range(texts)]


def with_one_character_changed(texts):
    """Each text with one character replaced by another of the same language."""
    rng, alphabet = random.Random(1), "".join(texts)
    changed = []
    for text in texts:
        at = rng.randrange(len(text))
        other = rng.choice([character for character in rng.choices(alphabet, k=200) if character != text[at]])
        changed.append(text[:at] + other + text[at + 1 :])
    return changed
