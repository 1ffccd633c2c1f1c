r"""The pieces that the adversary puts together."""

from __future__ import annotations

NUMBERS = (
    r"""
    0 1 -1 2 3 5 7 10 12 17 -12 360 1000003 0.5 .5 2.74 0.001 1e3 1e-400 10^{400} 10^{-400} 0.333333
    1,234 1{,}000 100,200 007 2.50 1.2.3 3.1415926535 123456789012345678901 0.1\overline{6} \frac12
    \frac{3}{17} 1\frac12 1/2 22/7 ½ ３ ² 2³ x² 五 ٣ Ⅳ
    """
).split()
"""Numbers in every spelling, some of them no numbers."""
UNDEFINED = (
    r"""
    \infty -\infty +\infty \infty-\infty \frac{\infty}{\infty} \frac{1}{0} \frac{0}{0} 0^0 0^{-1}
    1^\infty 0\cdot\infty 5^{5^{\infty}} \sqrt{\infty} 5^{\infty} 9^{9^{9^{9}}} (10^{10})! ((9!)!)!
    (-1)! \ln0 \log_{1}5 \tan(\pi/2) \binom{1000000000}{500000000} \sum_{k=1}^{0}k \sum_{k=1}^{\infty}1
    \prod_{k=1}^{0}k \sum_{k=1}^{10^9}k \int_0^1x\,dx \lim_{x\to0}x \frac{d}{dx}x nan NaN inf \emptyset
    \{\} () [] {} \arcsin2 \sqrt{-1} (-8)^{1/3} \ln(-1) \bot \top \varnothing \aleph_0 \frac{0}{x-x}
    x^{-\infty} e^{-\infty} e^{-10^{9}} \frac{x}{x} \sin(\infty) \lfloor\infty\rfloor |\infty| \max()
    \gcd(0,0) \infty! 0!
    """
).split()
"""Formulas without a value, or of a value that is hard to tell."""
SYMBOLS = (
    r"""
    x y z n k a b C e i j \pi \theta \alpha x_1 x' f(x) f A B \phi t w \ell X xy abc
    """
).split()
"""Names of variables and functions."""
UNARY = (
    r"""
    \sin \cos \tan \ln \log \exp \arcsin \arctan \sqrt \sinh \sec \cot \Gamma \zeta \arg \Re \Im
    \operatorname{sgn} \log_2 \sin^{-1} \sin^2 sin cos ln sqrt exp abs floor max \max \gcd \det - + \pm
    \mp \not \neg \partial \nabla
    """
).split()
"""What stands in front of an operand."""
BINARY = (
    r"""
    + - * / ^ _ \cdot \times \div \pm : = < > \le \ge \ne \approx \equiv \in \notin \to , ; & | \mid
    \cup \cap \setminus \pmod \bmod \land \lor \Rightarrow \iff \sim ** // == != ! % ' ° ^\circ \circ
    \ldots \\ ~ … × ÷ − ± ≤ ∈
    """
).split()
"""What stands between two."""
WORDS = (
    r"""
    or and not is the answer only if where for with except both none all real numbers no solution yes
    true Evelyn blue whale north odd undefined infinity pi e half double twice hundred million dozen
    percent per at least most more than less about approximately exactly any every number does exist
    between to of in from mod base plus minus times over squared first second minimum total option
    choice either neither unless when instead otherwise whatever correct A B C D (A) (B) (C) D. C: a)
    some integer remainder as remark n\in\mathbb{Z} (k\in\mathbb{N}) 5C2 nCr(5,2) 7P3 C_1 c_2
    March May 5th am pm a.m. noon midnight Monday zero one two five twelve
    """
).split()
"""Words that join, deny, hedge, count, or name something."""
UNITS = (
    r"""
    cm m km kg g s h km/h m/s \% % ^\circ degrees dollars cents \$ $ € apples units cm^2 square feet sq.
    ft inches °C °F K hours minutes days years rad L mph people mod \Omega \mu
    """
).split()
"""Units, and things that are counted."""
WRAPPERS = (
    r"""
    \boxed{%} \text{%} \mathbf{%} \left(%\right) (%) [%] \{%\} {%} |%| \lfloor%\rfloor \sqrt{%} -(%) $%$
    \mathrm{%} \overline{%} \underline{%} \frac{%}{1} \frac{1}{%} \frac{%}{%} (%)^1 (%)^{0} 0\cdot(%)
    1\cdot(%) %+0 %-(%) %! %% \color{red}{%} \phantom{%} \hphantom{%} \cancel{%} \xcancel{%} \sout{%}
    \substack{%} \overset{a}{%} \underset{%}{a} \underbrace{%} \mbox{%} \operatorname{%} \mathbb{%}
    \vec{%} \hat{%} \max(%,%) \{%,%\} x=% %=x %=% x\in% (A)% f(%) f(x)=% \sin(%) e^{%} 10^{%} (%] ]%[
    <%> \langle%\rangle \begin{cases}%\end{cases} \begin{matrix}%\end{matrix} \sum_{k=1}^{1}%
    \lim_{x\to0}% \int%dx %' %_1 %^T \tag{%} \label{%} \ref{%} \not% \\%\\ \(%\) \[%\] ``%'' \"%\" `%`
    **%** __%__ #%# \verb|%| \href{%}{1} \unknown{%} \textbf{(C)}%
    """
).split()
"""What is put around an answer, which `%` stands for."""
COMMANDS = (
    r"""
    \left \right \big \displaystyle \limits \, \; \! \quad \phantom{9} \hspace{1cm} \color{red} \rm \bf
    \hline \tag{1} \label{a} \ref{a} \cite{b} \text{} \mathrm{} \operatorname{} \mbox{} {} \begin{x}
    \end{x} \item \not \stackrel \overset \atop \over \choose \genfrac \substack \middle \nonumber
    \checkmark \therefore \because \blacksquare \square \Box \star \ast \prime \dagger \degree \infin \N
    \R \Z \bar \vec \dot \hat \tilde \vdots \unknowncommand \def\x{1} \newcommand \input{a} \write18
    \verb \char53 \symbol{53} \rule{1}{1} \kern \mathchoice
    """
).split()
"""Commands of LaTeX, known ones and unknown ones."""
JOINERS = (
    *(
        ", ",
        "; ",
        r" \text{ or } ",
        " or ",
        " and ",
        r"\text{ and }",
        " = ",
        r" \approx ",
        r" \ne ",
        r" \in ",
        r" \to ",
    ),
    *(
        r" \le ",
        " < ",
        " : ",
        " to ",
        " / ",
        r" \mid ",
        " | ",
        r" \lor ",
        r" \land ",
        r" \cup ",
        r" \cap ",
        " & ",
    ),
    *(
        r" \\ ",
        "\n",
        "  ",
        " ",
        "",
        r"\quad ",
        r" \pm ",
        " - ",
        " + ",
        " * ",
        r" \equiv ",
        " (",
        " where ",
        " if ",
    ),
    *(
        " not ",
        ", not ",
        " but ",
        " instead of ",
        " i.e. ",
        " in ",
        " with ",
        " for ",
        " when ",
        ". ",
        ".",
        " ... ",
    ),
    *(
        r"\ldots ",
        " vs ",
        r" \Rightarrow ",
        r" \iff ",
        " per ",
        " of ",
        " out of ",
        " mod ",
        " base ",
        " x ",
        r"\times ",
    ),
    *(
        r"\text{, }",
        "，",
        "、",
        "/",
        "·",
        " aka ",
        " also ",
        " either ",
        " unless ",
        " except ",
        r"\%",
        "_",
        "^",
        "!",
    ),
)
INVISIBLE = (
    "\u200b",
    "\u202e",
    "\u2066",
    "\u00a0",
    "\u2009",
    "\u0301",
    "\u20dd",
    "\u0338",
    "\ufeff",
    "\u00ad",
    "\u0336",
)
"""What stands between two answers, with its spaces."""
OPENINGS = ("", "", *r"( [ \{ { \begin{pmatrix} \begin{cases} x= x\in | ] \langle".split())
CLOSINGS = ("", "", *r") ] \} } \end{pmatrix} \end{cases} =x | [ \rangle".split())
SEPARATORS = (",", ",", ", ", " or ", *r"; \cup \cap \setminus = < \le & \\ : \ldots,".split())
"""What stands around and between the members of a list, a set, an interval or a matrix."""
