"""Languages by their codes: ``en``, ``eng_Latn`` and ``en_XX`` are one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

ISO = """
    afr=af amh=am arb=ar asm=as azj=az bak=ba bam=bm bel=be ben=bn bod=bo bos=bs bul=bg cat=ca
    ces=cs cym=cy dan=da deu=de dzo=dz ell=el eng=en epo=eo est=et eus=eu ewe=ee fao=fo pes=fa
    fij=fj fin=fi fra=fr fuv=ff gla=gd gle=ga glg=gl grn=gn guj=gu hat=ht hau=ha heb=he hin=hi
    hrv=hr hun=hu hye=hy ibo=ig ind=id isl=is ita=it jav=jv jpn=ja kan=kn kas=ks kat=ka kaz=kk
    khm=km kik=ki kin=rw kir=ky kon=kg kor=ko lao=lo lvs=lv lim=li lin=ln lit=lt ltz=lb lug=lg
    mal=ml mar=mr mkd=mk plt=mg mlt=mt khk=mn mri=mi zsm=ms mya=my nld=nl nno=nn nob=nb npi=ne
    nya=ny oci=oc gaz=om ory=or pan=pa pol=pl por=pt pbt=ps quy=qu ron=ro run=rn rus=ru sag=sg
    san=sa sin=si slk=sk slv=sl smo=sm sna=sn snd=sd som=so sot=st spa=es als=sq srd=sc srp=sr
    ssw=ss sun=su swe=sv swh=sw tam=ta tat=tt tel=te tgk=tg tgl=tl tha=th tir=ti tsn=tn tso=ts
    tuk=tk tur=tr twi=tw uig=ug ukr=uk urd=ur uzn=uz vie=vi wol=wo xho=xh ydd=yi yor=yo zho=zh
    zul=zu aka=ak ara=ar sqi=sq fas=fa msa=ms nor=no swa=sw yid=yi
"""
"""ISO 639-3 = ISO 639-1, by which most people call a language; of several that one name stands for, such as
Arabic's, the one that is written."""
TWO_LETTERS = dict(pair.split("=") for pair in ISO.split())
LISTED = 12
"""Languages that a message names, at most."""


def plain(code: str) -> str:
    """The language alone, in two letters where it has such: ``en`` of ``eng_Latn``, ``en_XX``, ``en-GB``."""
    language = re.split("[_-]", code.lower(), maxsplit=1)[0]
    return TWO_LETTERS.get(language, language)


def find_language(name: str, codes: Iterable[str]) -> str:
    """The code that a name stands for: itself, or the only one of a language that is called ``en``.

    Raises:
        ValueError: none, or more than one.
    """
    known = list(codes)
    if name in known:
        return name
    bare = name == re.split("[_-]", name)[0]
    found = [code for code in known if bare and plain(code) == plain(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"the language {name!r} may be {' or '.join(found)}: say which.")
    near = difflib.get_close_matches(name, [*known, *map(plain, known)], n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"the language {name!r} is none of the model's ({listed(known)}).{hint}")


def listed(codes: Iterable[str]) -> str:
    """The first of some languages, for a message."""
    known = list(codes)
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return ", ".join(known[:LISTED]) + more
